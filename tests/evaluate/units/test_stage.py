"""The whole comparison, on a few clips of two voices and models fitted in seconds."""

from __future__ import annotations

import json
import shutil

import pytest

from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.evaluate.config import UnitEvaluationConfig, UnitEvaluationStageConfig
from spiritlm_core.evaluate.rendering import MISSING
from spiritlm_core.evaluate.units.stage import UnitEvaluationStage, page, table
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.folder import TokenizerFolder
from tests.evaluate.clips import rows_of_clips

SETTINGS = UnitEvaluationStageConfig(
    robustness_minutes=0.2, snrs=(10.0,), speeds=(1.1,), bootstrap_samples=100, abx_cells=200, probe_folds=2
)


def _build(rows, models, folder, settings=SETTINGS):
    out = folder / "out"
    out.mkdir(parents=True)
    stage = UnitEvaluationStage(settings, models)
    summary = stage.build({"audio": TableView.of(table_of(rows, AUDIO))}, out, folder / "work", lambda *_: None)
    return summary, json.loads((out / "units.json").read_text()), out


@pytest.fixture(scope="module")
def built(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    given = folder / "given"
    for role in ("hubert", "quantizer"):
        shutil.copytree(models[role], given / role, ignore=shutil.ignore_patterns("iterations"))
    return _build(rows_of_clips(), {**models, "candidate.given": given}, folder)


def test_every_tokenizer_has_a_row_and_the_given_one_equals_its_twin(built):
    summary, report, _ = built
    named = {result["name"]: result for result in report["candidates"]}
    assert list(named) == ["mfcc", "iteration 1", "iteration 2", "recipe", "given"]
    assert set(named["recipe"]["streams"]) == {"hubert", "pitch", "style"}
    assert set(named["given"]["streams"]) == {"hubert"}
    assert named["given"]["streams"]["hubert"] == named["recipe"]["streams"]["hubert"]
    assert named["given"]["phones"] == named["recipe"]["phones"]
    assert named["given"]["abx"] == named["recipe"]["abx"]
    assert all(result["streams"]["hubert"]["size"] == 20 for result in named.values())
    twin = next(d for d in report["differences"] if (d["of"], d["over"]) == ("given", "recipe"))
    assert (twin["pnmi"], twin["pnmi_low"], twin["pnmi_high"], twin["verdict"]) == (0, 0, 0, "no difference shown")
    assert summary["pnmi"]["mfcc"] == named["mfcc"]["phones"]["pnmi"]


def test_figures_are_within_their_bounds(built):
    _, report, _ = built
    held_out = report["held_out"]
    assert held_out["clips"] == 8
    assert held_out["speakers"] == held_out["speakers_also_in_train"] == ["1088", "6848"]
    for result in report["candidates"]:
        phones = result["phones"]
        assert phones["pnmi_low"] < phones["pnmi"] < phones["pnmi_high"]
        assert phones["pnmi_chance"] < phones["pnmi"] < 1
        assert set(result["robustness"]) == {"noise 10 dB", "8 kHz", "speed 1.1"}
        assert all(value >= 0 for streams in result["robustness"].values() for value in streams.values())
        assert result["speaker"]["hubert"]["chance"] == 0.5
        assert 0 < result["bitrate"] <= sum(stream["bitrate_flat"] for stream in result["streams"].values())
        assert 0 <= result["abx"]["features"]["within"] <= 1  # a handful of cells: too few to ask for more
    pitch = {result["name"]: result["pitch"] for result in report["candidates"]}
    assert pitch["recipe"]["f0_rmse_cents"] > 0
    assert "missing" in pitch["mfcc"]


def test_the_table_and_the_page_show_them(built):
    _, report, out = built
    heading, *rows = table(report).rows
    assert all(len(row) == len(heading) for row in rows)
    row = dict(zip(heading, rows[0], strict=True))
    assert row["PNMI"] == f"{report['candidates'][0]['phones']['pnmi']:.3f}"
    assert row["F0 cents"] == MISSING
    assert (out / "units.md").read_text() == table(report).markdown()
    assert "2 of 2 held-out speakers are in the train split" in table(report).markdown()
    assert "mfcc" in table(report).plain()
    assert (out / "units.html").read_text() == page(report)
    assert "n/a: F0 and voicing, no pitch units (mfcc, iteration 1, iteration 2, given)." in table(report).plain()


def test_the_table_says_why_a_figure_is_missing(built):
    _, report, _ = built
    lonely = json.loads(json.dumps(report))
    for result in lonely["candidates"]:
        result["abx"] = {
            "cells": {"within": 3, "across": 0},
            "absent": {"across": "one voice"},
            "units": {"within": 0.5},
        }
        result["speaker"] = {"hubert": {"missing": "one speaker"}}
    assert "n/a: ABX a, one voice." in table(lonely).plain()
    assert "n/a: speaker, one speaker." in table(lonely).plain()


def test_names_are_escaped_in_the_page(built):
    report = json.loads(json.dumps(built[1]))
    report["held_out"]["speakers"] = ["<script>"]
    assert "<script>" not in page(report)


def test_neither_shards_nor_their_order_change_anything(built, models, tmp_path):
    rows = rows_of_clips()
    only = {"max_minutes": 0.2, "robustness_minutes": 0.05}
    settings = SETTINGS.model_copy(update=only)
    tables = [TableView.of(table_of(rows, AUDIO)), TableView.of(*(table_of([row], AUDIO) for row in reversed(rows)))]
    found = []
    for number, audio in enumerate(tables):
        out = tmp_path / str(number)
        out.mkdir()
        roles = {role: models[role] for role in ("hubert", "quantizer")}
        UnitEvaluationStage(settings, roles).build({"audio": audio}, out, tmp_path / f"w{number}", lambda *_: None)
        found.append((out / "units.json").read_bytes())
    assert found[0] == found[1]


def test_without_transcripts_the_rest_is_still_there_and_says_why(models, tmp_path):
    roles = {role: models[role] for role in ("hubert", "quantizer")}
    small = SETTINGS.model_copy(update={"max_minutes": 0.2, "robustness_minutes": 0.05})
    summary, report, out = _build(rows_of_clips(text=None), roles, tmp_path, small)
    assert summary["pnmi"] == {"mfcc": None, "iteration 1": None, "iteration 2": None, "recipe": None}
    assert report["labels"]["missing"] == "no transcript"
    assert report["differences"] == []
    assert report["candidates"][0]["phones"] == {"missing": "no transcript"}
    assert report["candidates"][0]["streams"]["hubert"]["perplexity"] > 1
    assert "no transcript" in (out / "units.md").read_text()
    assert "no transcript" in (out / "units.html").read_text()


def test_a_killed_build_keeps_the_tokenizers_it_has(models, tmp_path, monkeypatch):
    from spiritlm_core.evaluate.units import stage as module

    seen, real = [], module.measure

    def fails_at_the_third(candidate, data):
        seen.append(candidate.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(candidate, data)

    monkeypatch.setattr(module, "measure", fails_at_the_third)
    roles = {role: models[role] for role in ("hubert", "quantizer")}
    small = SETTINGS.model_copy(update={"max_minutes": 0.1, "robustness_minutes": 0.05})
    stage, audio = UnitEvaluationStage(small, roles), {"audio": TableView.of(table_of(rows_of_clips(), AUDIO))}
    with pytest.raises(KeyboardInterrupt):
        stage.build(audio, tmp_path, tmp_path / "work", lambda *_: None)
    stage.build(audio, tmp_path, tmp_path / "work", lambda *_: None)
    assert seen == ["mfcc", "iteration 1", "iteration 2", "iteration 2", "recipe"]


def test_errors_say_what_to_do(models, tmp_path):
    with pytest.raises(SpiritLMError, match="held_out_share"):
        _build(rows_of_clips(split="train"), models, tmp_path)
    with pytest.raises(ModelReferenceError, match="no hubert and no quantizer"):
        TokenizerFolder.read(tmp_path).models()
    with pytest.raises(ValueError, match="already"):
        UnitEvaluationConfig(models={"recipe": "file:///somewhere"})
