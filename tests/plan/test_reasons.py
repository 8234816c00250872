"""Which change causes that something is computed: it is named, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.graphs.speech_lm import speech_lm
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.changes import changes, since_last_run
from spiritlm_core.plan.preview import StagePreview, preview, totals
from spiritlm_core.recipe import Recipe
from tests.plan.lakes import clip, compute, planned, tiny


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five recordings, and a lake with their units."""
    folder = tmp_path_factory.mktemp("filled")
    for number in range(5):
        clip(folder / "clips", number)
    compute(tiny(folder / "clips"), Lake(folder / "lake"))
    return folder


@pytest.fixture
def place(filled: Path, tmp_path: Path) -> Path:
    """A copy of it to change; the recordings keep their times, so that nothing is hashed again."""
    return Path(shutil.copytree(filled, tmp_path / "copy", dirs_exist_ok=True))


def previewed(recipe: Recipe, place: Path) -> dict[str, StagePreview]:
    lake = Lake(place / "lake")
    since = since_last_run(lake, recipe.name, recipe, speech_lm)
    return {stage.name: stage for stage in preview(planned(recipe, lake), lake, since)}


def why(stages: dict[str, StagePreview]) -> dict[str, list[str]]:
    """The stages that have something to compute, and why."""
    return {name: list(map(str, stage.why)) for name, stage in stages.items() if stage.estimate.new}


def test_nothing_is_to_be_computed_where_nothing_changed(place: Path) -> None:
    stages = previewed(tiny(place / "clips"), place)
    assert {stage.status for stage in stages.values()} == {"reused"}
    assert why(stages) == {}
    assert totals(list(stages.values())) == {"stages": 0, "seconds": 0, "size": 0, "unknown": []}


def test_on_an_empty_lake_everything_is_a_first_run(place: Path) -> None:
    stages = previewed(tiny(place / "clips"), place / "elsewhere")
    assert {stage.status for stage in stages.values()} == {"new"}
    again = {name: ["first run"] for name in ("hubert", "quantizer", "units")}
    assert why(stages) == {"audio": ["first run: 5 recordings"], **again}
    assert totals(list(stages.values()))["unknown"] == ["audio", "hubert", "quantizer", "units"]


def test_the_setting_that_changed_is_named_and_nothing_else(place: Path) -> None:
    stages = previewed(tiny(place / "clips", "units.quantizer.units=9"), place)
    named = "`units.quantizer.units` 12 → 9"
    assert why(stages) == {"quantizer": [named], "units": [named, "upstream `quantizer`"]}


def test_several_settings_are_all_named(place: Path) -> None:
    stages = previewed(tiny(place / "clips", "units.precision=bf16", "audio.vad.onset=0.4", "audio.padding=0.2"), place)
    assert why(stages)["audio"] == ["`audio.padding` 0.3 → 0.2", "`audio.vad.onset` 0.5 → 0.4"]
    assert why(stages)["units"] == ["`units.precision` exact → bf16", "upstream `audio`"]


def test_recordings_that_were_added_are_counted_and_pinned_models_stay(place: Path) -> None:
    clip(place / "clips", 7)
    stages = previewed(tiny(place / "clips"), place)
    assert why(stages) == {"audio": ["1 recording added"], "units": ["upstream `audio`"]}
    assert (stages["audio"].status, stages["audio"].estimate.new, stages["audio"].estimate.shards) == (
        "partly new",
        1,
        4,
    )


def test_a_recording_that_changed_and_one_that_is_gone(place: Path) -> None:
    clip(place / "clips", 1, "good night")
    (place / "clips/2.wav").unlink()
    (place / "clips/2.txt").unlink()
    assert why(previewed(tiny(place / "clips"), place))["audio"] == ["1 recording changed", "1 recording removed"]


def test_a_setting_of_another_stage_is_no_cause_of_a_recording_that_changed(place: Path) -> None:
    clip(place / "clips", 1, "good night")
    stages = previewed(tiny(place / "clips", "units.quantizer.units=9"), place)
    assert why(stages)["audio"] == ["1 recording changed"]


def test_a_new_version_of_a_stage_is_a_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AudioStage, "version", 99)
    assert why(previewed(tiny(place / "clips"), place))["audio"] == ["stage version 4 → 99"]


def test_what_is_gone_from_the_lake_is_said_to_be(place: Path) -> None:
    next((place / "lake/tables/units").glob("*.parquet")).unlink()
    stages = previewed(tiny(place / "clips"), place)
    assert why(stages) == {"units": ["what was made of it is no more in the lake"]}
    assert (stages["units"].estimate.new, stages["units"].status) == (1, "partly new")


def test_another_model_in_place_of_a_fitted_one_is_a_reason(place: Path) -> None:
    recipe = tiny(place / "clips")
    shutil.copytree(place / "clips", place / "model")
    hubert = recipe.units.hubert.model_copy(update={"model": f"file://{place / 'model'}"})
    other = recipe.model_copy(update={"units": recipe.units.model_copy(update={"hubert": hubert})})
    (named,) = why(previewed(other, place))["quantizer"]
    assert named.startswith("`units.hubert.model` unset → file://")
    (place / "lake/outputs/tiny/recipe.json").unlink()
    assert why(previewed(other, place))["quantizer"] == ["model `hubert`"]


def test_the_rate_of_the_units_is_named_in_a_plan_and_a_diff(place: Path) -> None:
    recipe, lake = tiny(place / "clips", "units.rate=12.5"), Lake(place / "lake")
    assert why(previewed(recipe, place))["quantizer"] == ["`units.rate` 25.0 → 12.5"]
    found = changes(planned(recipe, lake), lake, since=since_last_run(lake, recipe.name, recipe, speech_lm))
    assert list(map(str, found.settings)) == ["`units.rate` 25.0 → 12.5"]


def test_without_the_settings_of_the_last_run_the_fields_of_stages_are_named(place: Path) -> None:
    (place / "lake/outputs/tiny/recipe.json").unlink()
    recipe, lake = tiny(place / "clips", "units.rate=12.5"), Lake(place / "lake")
    named = "`quantizer: rate` 25.0 → 12.5"
    assert why(previewed(recipe, place))["quantizer"] == [named]
    assert named in map(str, changes(planned(recipe, lake), lake).settings)


def test_a_setting_that_changes_what_is_listed_is_named(place: Path) -> None:
    stages = previewed(tiny(place / "clips", "language=fr"), place)
    assert why(stages)["audio"] == ["`language` en → fr", "5 recordings changed"]
    clip(place / "clips", 9)
    assert why(previewed(tiny(place / "clips"), place))["audio"] == ["1 recording added"]


def test_a_setting_that_changes_what_models_a_stage_has_is_named(place: Path) -> None:
    stages = previewed(tiny(place / "clips", "variant=expressive"), place)
    assert why(stages)["units"] == ["`variant` base → expressive"]
    shutil.copytree(place / "clips", place / "model")
    other = f"file://{place / 'model'}"
    named = why(previewed(tiny(place / "clips", f"units.encoder={other}"), place))["quantizer"][0]
    assert named.startswith("`units.encoder` unset → file://")


def test_a_snapshot_that_is_gone_is_written_again_and_a_damaged_one_is_named(place: Path) -> None:
    recipe, lake = tiny(place / "clips"), Lake(place / "lake")
    (path,) = (place / "lake/snapshots/audio").iterdir()
    path.unlink()
    assert not planned(recipe, lake).is_complete(lake)
    assert why(previewed(recipe, place)) == {}
    assert changes(planned(recipe, lake), lake).settings == ()
    assert why(previewed(tiny(place / "clips", "audio.padding=0.2"), place))["audio"] == ["first run: 5 recordings"]
    compute(recipe, lake)
    path.write_bytes(path.read_bytes().replace(b"audio", b"audit"))
    with pytest.raises(LakeError, match=rf"{path} is damaged"):
        planned(recipe, lake)
