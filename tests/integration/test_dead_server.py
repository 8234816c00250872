"""The embedded Prefect server is killed in the middle of a run: the run goes on, says so, and hands over its result."""

from __future__ import annotations

import json
import os
import signal
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


def test_a_run_survives_its_prefect_server(clips, tmp_path):
    home = tmp_path / "home"
    options = ["--until", "words", "--set", "compute.executor=inline", "--json"]
    arguments = ["run", runs.RECIPE, "--source", clips, "--lake", tmp_path / "lake", *options]
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
