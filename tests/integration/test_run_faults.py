"""Faults in the middle of a run: the embedded Prefect server is killed, a stage fails as nobody foresaw."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.integration import runs
from tests.support.watching import PATIENCE, all_end, descendants, kill

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three short clips and their texts."""
    for seed in range(3):
        sound(tmp_path / "clips" / f"{seed}.flac", voice(2.0, seed), subtype="PCM_16")
        (tmp_path / "clips" / f"{seed}.txt").write_text("hello there")
    return tmp_path / "clips"


@pytest.fixture
def arguments(clips: Path, tmp_path: Path) -> list[object]:
    """A run of a minute in one process."""
    options = ["--until", "words", "--set", "compute.executor=inline", "--json"]
    return ["run", runs.RECIPE, "--source", clips, "--lake", tmp_path / "lake", *options]


def said_until(words: str, process: subprocess.Popen[str]) -> str:
    """What a run has said by the time it says these words."""
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"it ended without them: {said}"
        said += line
    return said


def supervisor(home: Path) -> int:
    """The process that keeps the embedded server."""
    return json.loads((home / "spiritlm-server.json").read_text())["pid"]


def test_a_run_survives_its_prefect_server(arguments, tmp_path):
    home = tmp_path / "home"
    process = runs.start(*arguments, home=home, PREFECT_API_URL="")
    said = said_until("✓ audio", process)
    servers = descendants(supervisor(home))
    process.send_signal(signal.SIGSTOP)  # however fast it is, there is work left to do without a server
    kill(servers)
    assert all_end(servers)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert list(json.loads(out)["stages"]) == ["audio", "aligner", "words"]
    assert err.count("the Prefect server died") == 1
    assert err.count("the Prefect server does not answer") <= 1
    assert all(word not in said + err for word in ("Traceback", "ERROR", "Error logging"))
    again = json.loads(runs.spiritlm(*arguments, home=home, PREFECT_API_URL=""))
    assert all(stage["shards_computed"] == 0 for stage in again["stages"].values())


def test_a_server_ends_with_its_supervisor_and_the_run_goes_on(arguments, tmp_path):
    home = tmp_path / "home"
    process = runs.start(*arguments, home=home, PREFECT_API_URL="")
    said_until("✓ audio", process)
    servers = descendants(supervisor(home))
    assert servers
    os.kill(supervisor(home), signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["stages"]
    assert all_end(servers)


@pytest.mark.parametrize(
    ("closed", "status"),
    [(">&-", 0), ("2>&-", 0), ("2>/dev/full", 0), ("<&- >&- 2>&-", 0), ("| head -c 0", 0), (">/dev/full", 1)],
)
def test_a_run_needs_neither_its_output_nor_its_log(arguments, tmp_path, closed, status):
    where = {"PREFECT_API_URL": "", "XDG_STATE_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    line = shlex.join(runs.command(*arguments[:-3], "--set", "compute.executor=inline", "--until", "audio"))
    done = subprocess.run(
        ["bash", "-c", f"{line} {closed}"], check=False, capture_output=True, text=True, env={**os.environ, **where}
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stderr
    assert list((tmp_path / "lake" / "snapshots" / "audio").iterdir())


def test_a_server_that_is_none_is_said_in_one_line(arguments, tmp_path):
    told = runs.spiritlm(*arguments, home=tmp_path, status=1, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "no Prefect server takes the run" in told
    assert "unexpected" not in told


def test_a_stage_that_fails_unforeseen_ends_the_run_with_one_line_and_is_tried_again(arguments, tmp_path):
    where = {"PREFECT_API_URL": "", "XDG_STATE_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    disk_full = "import tasks.worker, errno\ndef full(*_): raise OSError(errno.ENOSPC, 'No space left', '/lake/x')\n"
    disk_full += "tasks.worker.run_shard = full; from spiritlm_core.cli import main; main()"
    command = [sys.executable, "-c", disk_full, *map(str, arguments)]
    for _ in range(2):  # what failed is not remembered as done
        done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **where})
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "No space left" in done.stderr.splitlines()[-1]
    assert runs.spiritlm(*arguments, home=tmp_path / "home", PREFECT_API_URL="")
