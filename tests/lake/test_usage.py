"""What a lake takes on the disk, and how long the snapshots of before are kept."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from spiritlm_core.lake.care import collect_garbage, verify
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.snapshot import KeepConfig, Snapshot
from spiritlm_core.lake.usage import usage
from tests.lake.stages import execute, fill, numbers_plan

DAY = 86_400.0


def nights(lake: Lake, keep: KeepConfig | None, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """A recipe that runs once a day up to now, on the numbers of the last two days."""
    now, made = time.time(), []
    for day in range(count):
        monkeypatch.setattr("spiritlm_core.lake.lake.time.time", lambda day=day: now - (count - 1 - day) * DAY)
        made.append(execute(lake, numbers_plan((day,), (day + 1,)), keep=keep)[0])
    monkeypatch.undo()
    return made


def left(lake: Lake, made: list[Snapshot]) -> list[int]:
    """The days whose snapshots are there after a collection, each of which can be read."""
    collect_garbage(lake)
    there = [day for day, snapshot in enumerate(made) if lake.find_snapshot("numbers", snapshot.fingerprint)]
    assert [lake.view(made[day]).read().column("value").to_pylist() for day in there] == [[d, d + 1] for d in there]
    assert list(verify(lake)) == []
    return there


@pytest.mark.parametrize(
    ("keep", "days"),
    [
        (None, [9]),
        (KeepConfig(snapshots=1), [9]),
        (KeepConfig(snapshots=3), [7, 8, 9]),
        (KeepConfig(snapshots=1, days=4.5), [4, 5, 6, 7, 8, 9]),  # the snapshot of day 4 was in use until day 5
        (KeepConfig(snapshots=8, days=4.5), [2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_gc_keeps_the_latest_snapshots_and_those_in_use_within_the_days(
    keep: KeepConfig | None, days: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    assert left(lake, nights(lake, keep, 10, monkeypatch)) == days


def test_what_is_kept_ends_with_time_and_with_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    made = nights(lake, KeepConfig(snapshots=1, days=3.5), 5, monkeypatch)
    now = lake.store.now()
    monkeypatch.setattr(lake.store, "now", lambda: now + 2 * DAY)
    assert left(lake, made) == [2, 3, 4]
    lake.write_ref("r", "numbers", "table", made[-1].fingerprint, made[-1].identity, None)
    assert left(lake, made) == [4]


def test_a_snapshot_that_comes_back_is_no_past_of_its_own(tmp_path: Path) -> None:
    lake, keep = Lake(tmp_path), KeepConfig(snapshots=2)
    for fingerprint in ("a", "b", "a", "b", "b"):
        lake.write_ref("r", "t", "table", fingerprint * 64, "1" * 64, keep)
    ref = lake.read_ref("r", "t")
    assert ref
    assert [one.target for one in ref.past] == ["a" * 64]
    before = lake.store.read("refs/r/t.json")
    lake.write_ref("r", "t", "table", "b" * 64, "1" * 64, keep)
    assert lake.store.read("refs/r/t.json") == before


def test_models_of_before_are_not_kept(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for key in ("a", "b"):
        lake.write_ref("r", "model", "artifact", key * 64, "1" * 64, KeepConfig(snapshots=9, days=9))
    ref = lake.read_ref("r", "model")
    assert ref
    assert ref.past == ()


def test_bytes_that_several_share_count_once_in_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    made = nights(lake, KeepConfig(snapshots=2), 3, monkeypatch)
    lake.write_ref("other", "numbers", "table", made[2].fingerprint, made[2].identity)
    lake.store.write("outputs/r/report.html", b"x" * 1000)
    used = usage(lake)
    stored = [path for path in tmp_path.rglob("*") if path.is_file() and path.parts[-3] not in ("refs", "leases")]
    assert used.bytes == sum(path.stat().st_size for path in stored)
    assert used.unused == collect_garbage(lake, dry_run=True).bytes > 0

    shard = lake.store.root / f"tables/numbers/{made[0].keys[0]}.parquet"
    by_day = {one.fingerprint: one for one in used.snapshots}
    first, second, third = [by_day[snapshot.fingerprint] for snapshot in made]
    assert (first.recipes, second.recipes, third.recipes) == ((), ("r",), ("other", "r"))
    assert first.share.objects == 3
    assert first.share.bytes - first.share.own == pytest.approx(shard.stat().st_size, abs=50)  # that of day 1
    own = [one.share.own for one in used.snapshots]
    assert sum(own) < used.names["numbers"].bytes < sum(one.share.bytes for one in used.snapshots)

    mine, others = used.recipes["r"], used.recipes["other"]
    assert others.own == 0
    assert mine.bytes - mine.own == others.bytes
    assert mine.bytes == second.share.bytes + third.share.own + 1000


def test_a_model_and_its_files_are_counted_under_its_name(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    artifact = fill(lake)
    share = usage(lake).names["sum"]
    assert share.objects == 1 + len(set(artifact.files.values()))
    assert share.own == share.bytes > sum(artifact.sizes.values())
