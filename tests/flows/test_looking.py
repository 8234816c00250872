"""Commands that only look: recipes of both kinds, what a lake stores, what its recipes refer to."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flows.recipes import FINETUNE, recipe_names
from spiritlm_core.cli.app import app
from spiritlm_core.errors import RecipeError
from spiritlm_core.lake.lake import Lake


def show(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception:
        raise done.exception
    return done.stdout


@pytest.mark.parametrize("name", [*recipe_names(), *recipe_names(FINETUNE), str(FINETUNE / "asr.yaml")])
def test_every_recipe_that_is_listed_can_be_shown(name):
    assert json.loads(show("recipes", name, "--json"))["name"] in (name, "asr")
    assert show("recipes", name).startswith("# ")


def test_a_recipe_that_is_not_there_is_refused_with_the_names_of_both_kinds():
    with pytest.raises(RecipeError, match="no recipe 'nosuch'; there are .*quickstart.*, asr, .*or give"):
        show("recipes", "nosuch")


def test_settings_go_with_either_kind():
    assert json.loads(show("recipes", "asr", "--set", "description=mine", "--json"))["description"] == "mine"
    with pytest.raises(RecipeError, match="nonsense"):
        show("recipes", "asr", "--set", "nonsense=1")


def test_lake_du_says_what_is_stored_and_status_what_recipes_refer_to(tmp_path):
    lake = Lake(tmp_path)
    for name, size in (("tables/audio/a", 3), ("tables/audio/b", 4), ("tables/words/c", 5), ("blobs/ab/cd", 7)):
        lake.store.write(f"{name}.parquet" if "tables" in name else name, bytes(size))
    used = json.loads(show("lake", "du", "--lake", tmp_path, "--json"))
    assert used["names"] == {
        "audio": {"objects": 2, "bytes": 7, "own": 7},
        "words": {"objects": 1, "bytes": 5, "own": 5},
    }
    assert (used["bytes"], used["unused"]) == (19, 19)
    assert "of which gc would delete 19 B" in show("lake", "du", "--lake", tmp_path)
    lake.write_ref("mine", "audio", "table", "0" * 64, "1" * 64)
    assert set(json.loads(show("status", "--lake", tmp_path, "--json"))["recipes"]["mine"]) == {"audio"}
