"""Nothing calls home: a run, its Prefect server and a served model try to reach this machine alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.integration.guarded import Guard, traces
from tests.integration.runs import RECIPE, command
from tests.support.serving import PATTERN
from tests.support.watching import PATIENCE, kill_group, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]
KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")
"""Nothing else of our environment: a switch, a proxy on this machine or a variable of a CI would keep things quiet."""
PYTHON = "import socket\ntry: socket.create_connection(('telemetry.invalid', 443), 5)\nexcept OSError: pass"
NATIVE = (
    "import ctypes; ctypes.CDLL(None).getaddrinfo(b'telemetry.invalid', None, None, ctypes.byref(ctypes.c_void_p()))"
)
ADDRESS = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
INHERITED = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ADDRESS!r}])"
SESSION = """
import time, onnxruntime, faster_whisper
from pathlib import Path
(model,) = Path(faster_whisper.__file__).parent.glob("assets/*.onnx")
session = onnxruntime.InferenceSession(model)
time.sleep(1000)
"""


def watched(guard: Guard, home: Path) -> dict[str, str]:
    """The environment of a user who has switched nothing off."""
    mine = {name: os.environ[name] for name in KEPT if name in os.environ}
    return mine | guard.environment | {"PREFECT_HOME": str(home)}


@pytest.mark.parametrize("code", [PYTHON, ADDRESS, INHERITED], ids=["name", "address", "child"])
def test_the_guard_sees_who_calls_home(code, tmp_path):
    guard = Guard(tmp_path)
    environment = watched(guard, tmp_path)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert guard.attempts()


@pytest.mark.skipif(not traces(), reason="needs strace, and the right to trace")
@pytest.mark.parametrize("code", [NATIVE, ADDRESS, INHERITED], ids=["name", "address", "child"])
def test_the_guard_sees_native_libraries_that_call_home(code, tmp_path):
    guard = Guard(tmp_path)
    environment = {**os.environ, "NETWORK_LOG": str(tmp_path / "unused")}
    subprocess.run([*guard.prefix, sys.executable, "-c", code], check=True, env=environment)
    assert guard.attempts()


@pytest.mark.skipif(not traces(), reason="needs strace, and the right to trace")
def test_the_guard_sees_onnxruntime_that_was_not_switched_off(tmp_path):
    guard = Guard(tmp_path)
    switched_on = watched(guard, tmp_path) | {"ORT_DISABLE_TELEMETRY": "0", "HOME": str(tmp_path)}
    session = subprocess.Popen([*guard.prefix, sys.executable, "-c", SESSION], env=switched_on, start_new_session=True)
    try:
        wait_for(guard.attempts, session)
    finally:
        kill_group(session)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, Guard]:
    """The tiny recipe run under guard, with a Prefect server of its own; the published model and the guard."""
    place = tmp_path_factory.mktemp("guarded")
    for seed in range(6):
        sound(place / "clips" / f"{seed}.flac", voice(3.0, seed), subtype="PCM_16")
        (place / "clips" / f"{seed}.txt").write_text("hello there one two three")
    guard = Guard(place)
    arguments = ["run", RECIPE, "--source", place / "clips", "--lake", place / "lake", "--json", "--until", "published"]
    run = [*guard.prefix, *command(*arguments, "--set", "compute.executor=inline")]
    done = subprocess.run(run, check=False, capture_output=True, text=True, env=watched(guard, place / "home"))
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["model"]), guard


def test_a_run_and_its_prefect_server_call_nobody(model):
    _, guard = model
    assert guard.attempts() == []


def test_a_served_model_and_its_page_call_nobody(model, tmp_path):
    guard = Guard(tmp_path)
    serve = [*guard.prefix, *command("serve", model[0], "--port", 0)]
    environment = watched(guard, tmp_path) | {"CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen(serve, env=environment, **pipes) as process:
        try:
            url = next(found[0] for line in iter(process.stdout.readline, "") if (found := PATTERN.search(line)))
            body = json.dumps({"parts": [{"kind": "text", "text": "one two"}], "max_new_tokens": 4}).encode()
            request = urllib.request.Request(f"{url}/v1/generate", body, {"Content-Type": "application/json"})
            assert urllib.request.urlopen(request, timeout=PATIENCE).status == 200
            assert b"gradio" in urllib.request.urlopen(url, timeout=PATIENCE).read()
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    assert guard.attempts() == []
