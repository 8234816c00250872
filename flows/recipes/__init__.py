"""Recipes that come with the package, and finding one by name or path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spiritlm_core.errors import RecipeError
from spiritlm_core.intake.config import parse_source
from spiritlm_core.recipe import Recipe, load_recipe_file
from spiritlm_core.speech.given import settled

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name, or by the path of a YAML file. Raises RecipeError."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_recipe_file(Path(name).expanduser(), overrides)
    if name not in recipe_names():
        raise RecipeError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}, or give a .yaml file")
    return load_recipe_file(FOLDER / f"{name}.yaml", overrides)


def with_sources(recipe: Recipe, sources: Sequence[str]) -> Recipe:
    """`recipe` with `sources`, in their short form, in place of its own if there are any. Raises SourceError."""
    if not sources:
        return recipe
    return recipe.model_copy(update={"sources": tuple(parse_source(source) for source in sources)})


def load_recipe(recipe: str | Recipe, sources: Sequence[str] = (), overrides: Sequence[str] = ()) -> Recipe:
    """The recipe to run, with `sources` in place of its own, and without an optional encoder that cannot be had.

    Raises:
        RecipeError: there is no such recipe, or something in it is wrong.
        SourceError: a source is wrong.
        ModelReferenceError: a folder that is named as an encoder is none.
    """
    if isinstance(recipe, str):
        recipe = find_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError("overrides go with the name of a recipe, not with a whole one: change the recipe itself")
    return with_sources(recipe.model_copy(update={"units": settled(recipe.units)}), sources)
