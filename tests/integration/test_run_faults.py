"""Faults in the middle of a run: the embedded Prefect server is killed, a stage fails as nobody foresaw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.integration import runs

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


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


def test_a_run_survives_its_prefect_server(arguments, tmp_path):
    home = tmp_path / "home"
    process = runs.start(*arguments, home=home, PREFECT_API_URL="")
    said = []
    for line in iter(process.stderr.readline, ""):
        said.append(line)
        if "✓ audio" in line:
            break
    supervisor = json.loads((home / "spiritlm-server.json").read_text())["pid"]
    for server in psutil.Process(supervisor).children(recursive=True):
        os.kill(server.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert list(json.loads(out)["stages"]) == ["audio", "aligner", "words"]
    assert err.count("the Prefect server died") == 1
    assert err.count("the Prefect server does not answer") <= 1
    assert all(word not in "".join(said) + err for word in ("Traceback", "ERROR", "Error logging"))
    again = json.loads(runs.spiritlm(*arguments, home=home, PREFECT_API_URL=""))
    assert all(stage["shards_computed"] == 0 for stage in again["stages"].values())


def test_a_stage_that_fails_unforeseen_ends_the_run_with_one_line_and_is_tried_again(arguments, tmp_path):
    where = {"PREFECT_API_URL": "", "XDG_STATE_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "home")}
    disk_full = "import tasks.worker, errno\ndef full(*_): raise OSError(errno.ENOSPC, 'No space left', '/lake/x')\n"
    disk_full += "tasks.worker.run_shard = full; from flows.cli import main; main()"
    command = [sys.executable, "-c", disk_full, *map(str, arguments)]
    for _ in range(2):  # what failed is not remembered as done
        done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **where})
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "No space left" in done.stderr.splitlines()[-1]
    assert runs.spiritlm(*arguments, home=tmp_path / "home", PREFECT_API_URL="")
