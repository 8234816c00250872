"""How much is to be computed, by what it took before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.preview import Estimate, Estimator
from tests.plan.lakes import clip, compute, planned, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings, and a lake that holds them and their HuBERT."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(4):
        clip(folder / "clips", number)
    compute(tiny(folder / "clips"), Lake(folder / "lake"), "hubert")
    return folder


def estimates(place: Path, *overrides: str) -> dict[str, Estimate]:
    lake = Lake(place / "lake")
    plan, estimator = planned(tiny(place / "clips", *overrides), lake), Estimator(lake, "tiny")
    tables = {"audio", "units"}
    return {
        name: estimator.table(stage) if name in tables else estimator.artifact(stage)  # type: ignore[arg-type]
        for name, stage in plan.stages.items()
    }


def test_what_is_there_takes_no_time_and_what_never_ran_is_unknown(place: Path) -> None:
    found = estimates(place)
    assert (found["audio"].shards, found["audio"].new, found["audio"].rows) == (2, 0, 4)
    assert (found["audio"].seconds, found["audio"].size) == (0, 0)
    assert found["hubert"] == Estimate(1, 0, seconds=0.0, size=0)
    assert found["quantizer"] == Estimate(1, 1)
    assert (found["units"].rows, found["units"].hours, found["units"].seconds) == (4, found["audio"].hours, None)


def test_new_shards_take_as_long_per_recording_as_those_of_the_last_run(place: Path) -> None:
    lake = Lake(place / "lake")
    shards = lake.read_snapshot("audio", lake.read_ref("tiny", "audio").target).shards  # type: ignore[union-attr]
    took = sum(shard.stats.seconds for shard in shards)
    size = sum(path.stat().st_size for path in (place / "lake/tables/audio").glob("*.parquet"))
    again = estimates(place, "audio.padding=0.2")
    assert again["audio"].new == 2
    assert again["audio"].seconds == pytest.approx(took, abs=0.1)
    assert again["audio"].size == size
    assert again["audio"].rows == 4
    assert again["audio"].hours == estimates(place)["audio"].hours


def test_a_model_takes_as_long_as_the_last_one(place: Path) -> None:
    lake = Lake(place / "lake")
    artifact = lake.read_artifact("hubert", lake.read_ref("tiny", "hubert").target)  # type: ignore[union-attr]
    assert artifact is not None
    found = estimates(place, "units.hubert.steps=[5]")["hubert"]
    assert found == Estimate(1, 1, seconds=artifact.seconds, size=sum(artifact.sizes.values()))


def test_the_manifest_of_a_run_on_another_lake_says_nothing_of_this_one(place: Path, tmp_path: Path) -> None:
    del place
    clip(tmp_path / "clips", 1)
    found = estimates(tmp_path)
    assert all(estimate.seconds is None and estimate.new for estimate in found.values())
    assert json.dumps([estimate.rows for estimate in found.values()]) == "[null, null, null, null]"
