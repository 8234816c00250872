from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.cli.plan import previewed
from flows.graphs.speech_lm import speech_lm
from spiritlm_core.errors import RecipeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.quality.config import Condition
from spiritlm_core.quality.selection import reasons
from spiritlm_core.quality.stage import QUALITY
from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.plan.lakes import compute, planned, tiny


def quality(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"utterance_id": f"u{i}", **row} for i, row in enumerate(rows)], QUALITY)


def test_a_broken_filter_says_what_is_and_what_should_be() -> None:
    table = quality({"snr": 7.2, "language": "fr"}, {"snr": 12.0, "language": "fr"}, {"snr": 10.0, "language": "en"})
    assert reasons(table, ["snr >= 10", "language == en"]) == ["snr < 10 dB: 7.2", "language != en: fr", None]


def test_what_was_not_measured_breaks_no_filter() -> None:
    assert reasons(quality({"rate": None}, {"rate": 9.0}), ["rate <= 5"]) == [None, "rate > 5 words/s: 9"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snr 10", "such as `snr >= 10`"),
        ("sn >= 10", "snr may be meant"),
        ("snr >= loud", "'loud' is no number"),
        ("snr >= NaN", "'NaN' is no number"),
        ("snr >= -inf", "'-inf' is no number"),
        ("wer <= 0.2", "wer is measured only where quality.recogniser names a model"),
        ("language_confidence > 0.5", "only where quality.language names"),
        ("dnsmos_signal > 3", "only where quality.dnsmos names"),
        ("language >= en", "compared with =="),
    ],
)
def test_a_filter_that_cannot_be_read_is_explained(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"(?s)filters.*{message}"):
        tiny(tmp_path, f"filters=['{text}']")


def test_a_filter_may_name_what_a_model_measures(tmp_path: Path) -> None:
    recipe = tiny(
        tmp_path, "filters=['language == en', 'snr >= 3']", "quality.language=hf://Systran/faster-whisper-tiny"
    )
    assert recipe.filters == ("language == en", "snr >= 3")


@pytest.mark.parametrize("text", ["snr>=10", "  language ==  en", "clipping < 0.001", "dc != 0"])
def test_a_filter_is_written_in_one_way(text: str) -> None:
    written = str(Condition.parse(text))
    assert str(Condition.parse(written)) == written
    assert written.split() == [Condition.parse(text).column, *written.split()[1:]]
    assert len(written.split()) == 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings, of which two are quiet, and a lake in which they were measured."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(6):
        path = sound(folder / "clips" / f"{number}.wav", voice(2.0, number) * (0.05 if number < 2 else 1))
        path.with_suffix(".txt").write_text("good morning")
    compute(tiny(folder / "clips", "quality={}"), Lake(folder / "lake"), "quality")
    return folder


def test_the_plan_says_what_a_filter_will_reject(place: Path) -> None:
    recipe, lake = tiny(place / "clips", "filters=['level >= -35','bandwidth > 100']"), Lake(place / "lake")
    told = previewed(planned(recipe, lake, "selection"), lake.uri)["stages"]
    assert told["quality"]["status"] == "reused"
    assert told["selection"]["filters"] == {"level < -35 dBFS": 2, "bandwidth <= 100 Hz": 0}

    compute(recipe, lake, "selection")
    totals = lake.read_snapshot("selection", planned(recipe, lake, "selection").stages["selection"].fingerprint).totals
    assert (totals.rows_in, totals.rows_out, totals.rejected) == (6, 4, 2)
    assert totals.reasons == {"level < -35 dBFS": 2}
    again = previewed(planned(recipe, lake, "selection"), lake.uri)["stages"]["selection"]
    assert (again["status"], again["filters"]) == ("reused", told["selection"]["filters"])
    other = planned(tiny(place / "clips", "filters=['level >= -30']"), lake, "selection")
    assert "filters" in json.dumps(previewed(other, lake.uri)["stages"]["selection"]["why"])


def test_nothing_is_said_of_filters_where_nothing_was_measured(place: Path, tmp_path: Path) -> None:
    plan = planned(tiny(place / "clips", "filters=['snr >= 3']"), Lake(tmp_path), "selection")
    assert "filters" not in previewed(plan, str(tmp_path))["stages"]["selection"]


def test_every_segment_is_measured(place: Path) -> None:
    lake = Lake(place / "lake")
    ref = lake.read_ref("tiny", "quality")
    assert ref is not None
    table = lake.view(lake.read_snapshot("quality", ref.target)).read()
    assert table.schema == QUALITY
    for name in ("duration", "level", "snr", "speech", "rate", "fingerprint"):
        assert table[name].null_count == 0, name
    assert table["dnsmos"].null_count == table.num_rows
    assert np.ptp(table["level"].to_numpy()) > 20


def test_a_recipe_without_filters_has_no_such_stage(tmp_path: Path) -> None:
    assert not {"quality", "selection", "duplicates"} & set(speech_lm(tiny(tmp_path)).nodes)
    assert {"quality", "selection"} <= set(speech_lm(tiny(tmp_path, "filters=['snr >= 3']")).nodes)
