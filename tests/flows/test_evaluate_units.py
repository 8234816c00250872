"""``spiritlm evaluate units``: what it runs, and how tokenizers are named on the command line."""

from __future__ import annotations

import pytest
from flows.stages import stages_for, wanted_stages

from flows.cli.evaluate import _override
from flows.recipes import find_recipe
from spiritlm_core.errors import RecipeError


def test_it_runs_what_the_unit_models_need_and_no_more():
    names = [stage.name for stage in stages_for(find_recipe("quickstart", []), ["unit_evaluation"])]
    assert names == ["audio", "hubert", "quantizer", "pitch", "style", "unit_evaluation"]
    given = find_recipe("quickstart", ["variant=base", "units.hubert.model=file:///model"])
    assert [stage.name for stage in stages_for(given, ["unit_evaluation"])] == ["audio", "quantizer", "unit_evaluation"]


def test_an_ordinary_run_does_not_judge_units():
    assert "unit_evaluation" not in [stage.name for stage in wanted_stages(find_recipe("quickstart", []))]


def test_given_tokenizers_are_models_and_not_settings(tmp_path):
    recipe = find_recipe("quickstart", [_override(f"my own={tmp_path}/a: b"), _override("hub=hf://org/name")])
    (stage,) = [s for s in stages_for(recipe, ["unit_evaluation"]) if s.name == "unit_evaluation"]
    models = stage.models(recipe)
    assert models["candidate.hub"] == "hf://org/name"
    assert models["candidate.my own"] == (tmp_path / "a: b").as_uri()
    assert stage.config(recipe) == stage.config(find_recipe("quickstart", []))  # paths reach no fingerprint


@pytest.mark.parametrize("model", ["folder", "=folder", "name=", "a.b=folder"])
def test_a_model_without_name_or_folder_is_an_error(model):
    with pytest.raises(RecipeError, match="NAME=FOLDER"):
        _override(model)
