"""`spiritlm diff`: recordings and settings by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.changes import Changes, changes
from tests.plan.lakes import clip, compute, planned, tiny


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Five recordings and their lake, run twice: at first there were four."""
    for number in range(4):
        clip(tmp_path / "clips", number)
    compute(tiny(tmp_path / "clips"), Lake(tmp_path / "lake"), "audio")
    clip(tmp_path / "clips", 4)
    compute(tiny(tmp_path / "clips"), Lake(tmp_path / "lake"), "audio")
    return tmp_path


def changed(place: Path, *overrides: str, snapshot: str | None = None) -> Changes:
    lake, recipe = Lake(place / "lake"), tiny(place / "clips", *overrides)
    return changes(planned(recipe, lake, "audio"), recipe, lake, snapshot)


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def first_snapshot(place: Path) -> str:
    lake = Lake(place / "lake")
    now = lake.read_ref("tiny", "audio")
    assert now is not None
    return next(p.stem for p in (place / "lake/snapshots/audio").iterdir() if p.stem != now.target)


def test_nothing_changed_in_a_folder_that_was_only_moved(place: Path) -> None:
    lake = shutil.move(place, place.with_name("moved"))
    found = changed(lake)
    assert found.items["audio"].counts() == {"added": 0, "changed": 0, "removed": 0}
    assert (found.items["audio"].rejected, found.settings, found.is_first) == ({}, (), False)


def test_every_recording_that_changed_is_named(place: Path) -> None:
    clip(place / "clips", 8)
    clip(place / "clips", 2, "good night")
    clip(place / "clips", 9).rename(place / "clips/0.wav")
    (place / "clips/9.txt").unlink()
    (place / "clips/3.wav").unlink()
    (place / "clips/3.txt").unlink()
    (place / "clips/bad.wav").write_bytes(b"")
    shutil.copyfile(place / "clips/1.wav", place / "clips/twice.wav")
    items = changed(place).items["audio"]
    assert names(items.added) == ["8.wav", "bad.wav", "twice.wav"]
    assert {Path(name).name: reason for name, reason in items.rejected.items()} == {
        "twice.wav": "same audio as, but with other particulars than, 1.wav"
    }
    assert (names(items.changed), names(items.removed), items.lost) == (["0.wav", "2.wav"], ["3.wav"], 1)


def test_settings_are_named(place: Path) -> None:
    found = changed(place, "audio.max_seconds=20")
    assert [str(reason) for reason in found.settings] == ["`audio.max_seconds` 30.0 → 20.0"]
    assert found.items["audio"].counts() == {"added": 0, "changed": 0, "removed": 0}


def test_an_earlier_snapshot_is_compared_with_what_is_there_now(place: Path) -> None:
    found = changed(place, snapshot=first_snapshot(place)[:12])
    assert names(found.items["audio"].added) == ["4.wav"]


def test_on_an_empty_lake_all_is_new(place: Path) -> None:
    shutil.rmtree(place / "lake")
    found = changed(place)
    assert found.is_first
    assert len(found.items["audio"].added) == 5


@pytest.mark.parametrize(("beginning", "says"), [("zz", "no snapshot begins with 'zz'"), ("", "several snapshots")])
def test_a_snapshot_that_is_none_is_refused(place: Path, beginning: str, says: str) -> None:
    lake, recipe = Lake(place / "lake"), tiny(place / "clips")
    with pytest.raises(LakeError, match=says):
        changes(planned(recipe, lake, "audio"), recipe, lake, beginning or "")
