"""Who is alive is known by locks: what a file says of a process may be of another one by now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spiritlm_core.files import locked
from tasks import prefect_server
from tasks.prefect_server import Home

STATE = {"pid": os.getpid(), "url": "http://127.0.0.1:9/api"}


@pytest.mark.parametrize(
    "text",
    [json.dumps(STATE), json.dumps({**STATE, "pid": -1}), "[]", "{{", "", "\udcff"],
    ids=["mine", "nobody's", "a list", "broken", "empty", "no text"],
)
def test_a_state_file_that_no_supervisor_holds_is_not_a_server(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.state.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert prefect_server._running(home) is None


def test_a_state_file_that_is_held_names_the_server_whatever_was_in_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.state.write_text("left by a supervisor that was killed, and longer than what comes" * 9)
    with locked(home.state) as state:
        assert prefect_server._running(home) is None, "nothing is written yet"
        state.write(json.dumps(STATE))
        state.flush()
        assert prefect_server._running(home) == STATE["url"]
    assert prefect_server._running(home) is None


CLIENT = """
import sys
from pathlib import Path
from tasks.prefect_server import Home, _registered
with _registered(Home(Path(sys.argv[1]))):
    print("up", flush=True)
    sys.stdin.read()
"""


def test_a_killed_client_uses_no_server_though_its_number_lives_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(tmp_path)], env=environment, **pipes)
    assert client.stdout.readline()
    (home.clients / str(os.getpid())).touch()  # of a run before the machine was started anew
    assert prefect_server._clients(home) == [home.clients / str(client.pid)]
    assert not prefect_server._unused(home)
    client.kill()
    client.communicate()
    assert prefect_server._unused(home)
    assert list(home.clients.iterdir()) == []
