"""``spiritlm recipes``: what can be run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from spiritlm_core.cli.options import JsonOption, SetOption
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show this recipe (name or file), of either kind, with every setting.")
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes that come with the package, or show one with all its settings and their defaults."""
    if name is None:
        _list(as_json=as_json)
    else:
        _show(name, set_ or [], as_json=as_json)


def _list(*, as_json: bool) -> None:
    from flows.recipes import find_recipe, recipe_names
    from flows.recipes.finetune import find_finetune_recipe, finetune_recipe_names

    runs = {name: find_recipe(name).description for name in recipe_names()}
    tasks = {name: find_finetune_recipe(name).description for name in finetune_recipe_names()}
    if as_json:
        typer.echo(json.dumps({**runs, **{f"finetune {name}": about for name, about in tasks.items()}}))
        return
    for name, about in runs.items():
        typer.echo(f"{name:<12} {about}")
    typer.echo("\nFor spiritlm finetune:")
    for name, about in tasks.items():
        typer.echo(f"{name:<16} {about}")
    typer.echo("\nspiritlm recipes NAME shows one; copy it to a .yaml file of your own to change more than --set can.")


def _show(name: str, overrides: list[str], *, as_json: bool) -> None:
    from spiritlm_core.config_text import commented_yaml

    about, recipe = _named(name, overrides)
    typer.echo(recipe.model_dump_json() if as_json else f"# {about}\n{commented_yaml(recipe)}", nl=as_json)


def _named(name: str, overrides: list[str]) -> tuple[str, FrozenConfig]:
    """The recipe called `name`, of whichever kind, and what to do with it. Raises RecipeError."""
    from flows.graphs.speech_lm import speech_lm
    from flows.recipes import find_recipe, recipe_names
    from flows.recipes.finetune import find_finetune_recipe, finetune_recipe_names

    is_file = name.endswith((".yaml", ".yml")) or "/" in name
    if name in finetune_recipe_names():
        return f"for spiritlm finetune {name}", find_finetune_recipe(name, overrides)
    if not is_file and name not in recipe_names():
        known = ", ".join([*recipe_names(), *finetune_recipe_names()])
        raise RecipeError(f"there is no recipe {name!r}; there are {known}, or give a .yaml file")
    try:
        recipe = find_recipe(name, overrides)
    except RecipeError as error:
        if not is_file:
            raise
        try:
            return f"for spiritlm finetune {name}", find_finetune_recipe(name, overrides)
        except RecipeError:
            raise error from None
    return f"stages: {', '.join(stage.name for stage in speech_lm(recipe).wanted())}", recipe
