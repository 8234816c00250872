"""`spiritlm plan`, `run --dry-run` and `diff` as people start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from tests.plan.lakes import TINY, clip, compute, planned, tiny

HEAVY = ("prefect", "ray", "torch", "transformers", "whisperx")
CODE = f"""
import sys
from spiritlm_core.cli import main
try:
    main()
finally:
    print("heavy:", [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings, and a lake with two of them."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(2):
        clip(folder / "clips", number)
    compute(tiny(folder / "clips"), Lake(folder / "lake"), "audio")
    for number in range(2, 14):
        clip(folder / "clips", number)
    return folder


def spiritlm(place: Path, *arguments: str) -> str:
    given = ("--source", str(place / "clips"), "--set", "variant=base", "--set", "vocoder=null")
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments, *given, "--lake", str(place / "lake")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stderr
    return done.stdout


def answered(place: Path, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(spiritlm(place, *arguments, "--json"))
    return answer


def test_a_plan_needs_no_heavy_library_and_says_why(place: Path) -> None:
    told = answered(place, "plan", str(TINY))
    audio = told["stages"]["audio"]
    assert (audio["kind"], audio["status"], audio["why"][0]["text"]) == ("table", "partly new", "12 recordings added")
    assert set(told["to_compute"]["unknown"]) == set(told["stages"]) - {"audio"}
    assert "12 recordings added" in spiritlm(place, "plan", str(TINY), "--until", "audio")


def test_a_dry_run_is_the_plan(place: Path) -> None:
    plan = answered(place, "plan", str(TINY), "--until", "audio")
    dry = answered(place, "run", str(TINY), "--dry-run", "--until", "audio")
    assert {**plan, "seconds": 0} == {**dry, "seconds": 0}
    assert list(plan["stages"]) == ["audio"]


def test_a_diff_names_ten_and_counts_the_others(place: Path) -> None:
    lines = spiritlm(place, "diff", str(TINY), "--set", "audio.padding=0.2").splitlines()
    assert lines[1] == "  audio: 12 added"
    assert lines[2] == f"    {place}/clips/10.wav"
    assert lines[12:] == ["    and 2 more; --json names all", "  `audio.padding` 0.3 → 0.2"]
    assert len(answered(place, "diff", str(TINY))["items"]["audio"]["added"]) == 12


@pytest.mark.parametrize("command", ["plan", "diff"])
def test_a_lake_that_is_not_there_is_not_made(tmp_path: Path, command: str) -> None:
    clip(tmp_path / "clips", 1)
    said = spiritlm(tmp_path, command, str(TINY))
    assert not (tmp_path / "lake").exists()
    assert command == "diff" or f"there is no lake at {tmp_path / 'lake'} yet: a run starts it" in said


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="nothing can be made below /proc, which is not here")
def test_a_lake_where_none_can_be_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    clip(tmp_path / "clips", 1)
    assert planned(tiny(tmp_path / "clips"), Lake("/proc/lake"), "audio").stages
    with pytest.raises(LakeError, match=r"^/proc/lake cannot be written to \(No such file or directory at /proc/lake"):
        Lake("/proc/lake").write_ref("r", "audio", "table", "0" * 64, "0" * 64)
