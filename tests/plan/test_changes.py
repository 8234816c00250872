"""`spiritlm diff`: recordings and settings by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.graphs.speech_lm import speech_lm
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.plan.changes import Changes, changes, since_last_run
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
    since = since_last_run(lake, recipe.name, recipe, speech_lm)
    return changes(planned(recipe, lake, "audio"), lake, snapshot, since)


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


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("language=fr", "`language` en → fr"),
        ("units.rate=12.5", "`units.rate` 25.0 → 12.5"),
        ("units.encoder=hf://some/other", "`units.encoder` unset → hf://some/other"),
        ("variant=expressive", "`variant` base → expressive"),
        ("lm.steps=77", "`lm.steps` 8 → 77"),
    ],
)
def test_a_setting_is_named_whatever_it_changes(place: Path, override: str, told: str) -> None:
    assert [str(reason) for reason in changed(place, override).settings] == [told]


@pytest.mark.parametrize("kept", [b"", b"{}", None])
def test_without_the_settings_of_the_last_run_the_stages_are_compared(place: Path, kept: bytes | None) -> None:
    path = place / "lake/outputs/tiny/recipe.json"
    path.unlink() if kept is None else path.write_bytes(kept)
    found = changed(place, "audio.max_seconds=20", "language=fr")
    assert [str(reason) for reason in found.settings] == ["`audio: max_seconds` 30.0 → 20.0"]


def test_a_table_whose_parents_are_gone_is_still_compared(place: Path) -> None:
    lake = Lake(place / "lake")
    made = Snapshot("units", "1" * 64, (), {"inputs": {"audio": "2" * 64}})
    lake.write_snapshot(made)
    assert changed(place, snapshot=made.fingerprint).items == {}


def test_an_earlier_snapshot_is_compared_with_what_is_there_now(place: Path) -> None:
    found = changed(place, snapshot=first_snapshot(place)[:12])
    assert names(found.items["audio"].added) == ["4.wav"]


def test_on_an_empty_lake_all_is_new(place: Path) -> None:
    shutil.rmtree(place / "lake")
    found = changed(place)
    assert found.is_first
    assert len(found.items["audio"].added) == 5


@pytest.mark.parametrize(
    ("beginning", "says"),
    [
        ("zz", "no snapshot begins with 'zz'; the newest are audio "),
        ("", "several snapshots begin with ''; the newest"),
    ],
)
def test_a_snapshot_that_is_none_is_refused(place: Path, beginning: str, says: str) -> None:
    lake, recipe = Lake(place / "lake"), tiny(place / "clips")
    with pytest.raises(LakeError, match=says):
        changes(planned(recipe, lake, "audio"), lake, beginning or "")
