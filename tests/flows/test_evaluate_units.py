"""``spiritlm evaluate units``: what it runs, and how tokenizers are named on the command line."""

from __future__ import annotations

import pytest

from flows.cli.evaluate import _override
from flows.graphs.speech_lm import speech_lm
from flows.recipes import find_recipe
from spiritlm_core.errors import RecipeError


def test_it_runs_what_the_unit_models_need_and_no_more():
    names = [stage.name for stage in speech_lm(find_recipe("scratch", [])).wanted("unit_evaluation")]
    assert names == ["audio", "hubert", "quantizer", "pitch", "style", "unit_evaluation"]
    given = find_recipe("scratch", ["variant=base", "units.hubert.model=file:///model"])
    assert [stage.name for stage in speech_lm(given).wanted("unit_evaluation")] == [
        "audio",
        "quantizer",
        "unit_evaluation",
    ]


def test_an_ordinary_run_does_not_judge_units():
    assert "unit_evaluation" not in [stage.name for stage in speech_lm(find_recipe("scratch", [])).wanted()]


def test_given_tokenizers_are_models_and_not_settings(tmp_path):
    recipe = find_recipe("scratch", [_override(f"my own={tmp_path}/a: b"), _override("hub=hf://org/name")])
    stage = speech_lm(recipe).nodes["unit_evaluation"]
    models = stage.models
    assert models["candidate.hub"] == "hf://org/name"
    assert models["candidate.my own"] == (tmp_path / "a: b").as_uri()
    assert (
        stage.config == speech_lm(find_recipe("scratch", [])).nodes["unit_evaluation"].config
    )  # paths reach no fingerprint


@pytest.mark.parametrize("model", ["folder", "=folder", "name=", "a.b=folder"])
def test_a_model_without_name_or_folder_is_an_error(model):
    with pytest.raises(RecipeError, match="NAME=FOLDER"):
        _override(model)
