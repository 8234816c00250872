"""Settings say what they mean, in the reference and above each key that ``spiritlm recipes NAME`` prints."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli.recipes import commented_yaml
from flows.recipes import FINETUNE, find_finetune_recipe, find_recipe, recipe_names
from spiritlm_core.config_files import load_config
from spiritlm_core.finetune.config import FinetuneRecipe
from spiritlm_core.recipe import Recipe

ROOT = Path(__file__).parents[1]


def described(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, section in {"": schema, **schema["$defs"]}.items():
        for key, field in section.get("properties", {}).items():
            if "const" not in field:
                yield f"{name}.{key}", field.get("description", "")


def test_the_reference_is_current():
    reference = runpy.run_path(str(ROOT / "docs/site/settings.py"))["reference"]()
    assert (ROOT / "docs/settings.md").read_text() == reference, "run `make docs`"


@pytest.mark.parametrize("model", [Recipe, FinetuneRecipe])
def test_every_setting_is_described_in_a_sentence_of_its_own(model):
    fields = list(described(model.model_json_schema()))
    assert len(fields) > 80
    assert [
        name for name, text in fields if not text.endswith(".") or text.startswith(("Of ", "As in", "The same"))
    ] == []


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_reads_back_to_the_same(name):
    recipe = find_recipe(name)
    text = commented_yaml(recipe)
    assert load_config(Recipe, text, "printed") == recipe
    assert "# Languages of the model card" in text
    assert max(map(len, text.splitlines())) < 260


@pytest.mark.parametrize("name", recipe_names(FINETUNE))
def test_a_printed_fine_tuning_recipe_reads_back_to_the_same(name):
    recipe = find_finetune_recipe(name, ["base=model", "data.path=clips.jsonl"])
    assert load_config(FinetuneRecipe, commented_yaml(recipe), "printed") == recipe


def test_text_with_signs_of_yaml_reads_back():
    recipe = find_recipe("quickstart", ["publish.description='a: b # c\n\n- d   e'", 'publish.data=" x\\ty "'])
    assert load_config(Recipe, commented_yaml(recipe), "printed") == recipe
