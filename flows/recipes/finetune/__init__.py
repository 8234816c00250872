"""Recipes for fine-tuning that come with the package, and finding one by name or path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spiritlm_core.config_files import load_config_file
from spiritlm_core.errors import RecipeError
from spiritlm_core.finetune.recipe import FinetuneRecipe

FOLDER = Path(__file__).parent


def finetune_recipe_names() -> list[str]:
    """The names of the fine-tuning recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_finetune_recipe(name: str, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """A fine-tuning recipe by name, or by the path of a YAML file. Raises RecipeError."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_config_file(FinetuneRecipe, Path(name).expanduser(), "recipe", overrides)
    if name not in finetune_recipe_names():
        known = ", ".join(finetune_recipe_names())
        raise RecipeError(f"there is no fine-tuning recipe {name!r}; there are {known}, or give a .yaml file")
    return load_config_file(FinetuneRecipe, FOLDER / f"{name}.yaml", "recipe", overrides)


def load_finetune_recipe(
    recipe: str | FinetuneRecipe, data: str | None = None, base: str | None = None, overrides: Sequence[str] = ()
) -> FinetuneRecipe:
    """The recipe to run, with `data` and `base` in place of its own. Raises RecipeError."""
    if isinstance(recipe, str):
        recipe = find_finetune_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError("overrides go with the name of a recipe, not with a whole one: change the recipe itself")
    changed: dict[str, Any] = {} if base is None else {"base": base}
    if data is not None:
        changed["data"] = recipe.data.model_copy(update={"path": data})
    return recipe.model_copy(update=changed)
