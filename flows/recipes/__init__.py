"""Recipes that come with the package, those of ``spiritlm run`` and of ``spiritlm finetune``, by name or path."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.recipes.optional import settled
from spiritlm_core.config_files import load_config_file
from spiritlm_core.errors import RecipeError
from spiritlm_core.finetune.config import FinetuneRecipe
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.recipe import Recipe, load_recipe_file

FOLDER = Path(__file__).parent
FINETUNE = FOLDER / "finetune"
_WHOLE = "overrides go with the name of a recipe, not with a whole one: change the recipe itself"


def recipe_names(folder: Path = FOLDER) -> list[str]:
    """The names of the recipes that come with the package; in `FINETUNE` lie those of fine-tuning."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _file(name: str, folder: Path, what: str) -> Path:
    """The file of a recipe by name, or by its path. Raises RecipeError."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name).expanduser()
    if name not in recipe_names(folder):
        known = ", ".join(recipe_names(folder))
        raise RecipeError(f"there is no {what} {name!r}; there are {known}, or give a .yaml file")
    return folder / f"{name}.yaml"


def find_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name, or by the path of a YAML file. Raises RecipeError."""
    return load_recipe_file(_file(name, FOLDER, "recipe"), overrides)


def find_finetune_recipe(name: str, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """A fine-tuning recipe by name, or by the path of a YAML file. Raises RecipeError."""
    return load_config_file(FinetuneRecipe, _file(name, FINETUNE, "fine-tuning recipe"), "recipe", overrides)


def with_sources(recipe: Recipe, sources: Sequence[str]) -> Recipe:
    """`recipe` with `sources`, in their short form, in place of its own if there are any. Raises SourceError.

    Synthetic speech of the recipe that only repeats what other sources say stays, as it then says what these say.
    """
    if not sources:
        return recipe
    given = [parse_source(source) for source in sources]
    recorded = any(not isinstance(source, SpeakSource) for source in given)
    stay = [own for own in recipe.sources if recorded and isinstance(own, SpeakSource) and own.repeats]
    return recipe.model_copy(update={"sources": (*given, *stay)})


def load_recipe(recipe: str | Recipe, sources: Sequence[str] = (), overrides: Sequence[str] = ()) -> Recipe:
    """The recipe to run, with `sources` in place of its own, and without what is optional and cannot be had.

    Raises:
        RecipeError: there is no such recipe, or something in it is wrong.
        SourceError: a source is wrong.
        ModelReferenceError: a folder that is named as an encoder is none.
    """
    if isinstance(recipe, str):
        recipe = find_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError(_WHOLE)
    placed = with_sources(recipe, sources)
    for override in overrides:
        number = re.match(r"\s*sources\.(\d+)\.", override)
        if number and any(own not in placed.sources for own in recipe.sources[int(number[1]) :][:1]):
            raise RecipeError(f"--set {override}: --source takes the place of that source; write both into a recipe")
    return settled(placed)


def load_finetune_recipe(
    recipe: str | FinetuneRecipe, data: str | None = None, base: str | None = None, overrides: Sequence[str] = ()
) -> FinetuneRecipe:
    """The recipe to run, with `data` and `base` in place of its own. Raises RecipeError."""
    if isinstance(recipe, str):
        recipe = find_finetune_recipe(recipe, overrides)
    elif overrides:
        raise RecipeError(_WHOLE)
    changed: dict[str, Any] = {} if base is None else {"base": base}
    if data is not None:
        changed["data"] = recipe.data.model_copy(update={"path": data})
    return recipe.model_copy(update=changed)
