"""``spiritlm recipes``: what can be run."""

import json
from collections.abc import Iterator
from textwrap import indent, wrap
from typing import Annotated, Any

import typer
import yaml

from spiritlm_core.cli.options import JsonOption, SetOption
from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import RecipeError


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="Show this recipe (name or .yaml file), of either kind, with every setting."
        ),
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
    from flows.recipes import FINETUNE, find_finetune_recipe, find_recipe, recipe_names

    runs = {name: find_recipe(name).description for name in recipe_names()}
    tasks = {name: find_finetune_recipe(name).description for name in recipe_names(FINETUNE)}
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

    about, recipe = _named(name, overrides)
    typer.echo(recipe.model_dump_json() if as_json else f"# {about}\n{commented_yaml(recipe)}", nl=as_json)


def _named(name: str, overrides: list[str]) -> tuple[str, FrozenConfig]:
    """The recipe called `name`, of whichever kind, and what to do with it. Raises RecipeError."""
    from flows.graphs.speech_lm import speech_lm
    from flows.recipes import FINETUNE, find_finetune_recipe, find_recipe, recipe_names

    is_file = name.endswith((".yaml", ".yml")) or "/" in name
    if name in recipe_names(FINETUNE):
        return f"for spiritlm finetune {name}", find_finetune_recipe(name, overrides)
    if not is_file and name not in recipe_names():
        known = ", ".join([*recipe_names(), *recipe_names(FINETUNE)])
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


_WIDTH = 120


def commented_yaml(config: FrozenConfig) -> str:
    """All settings of `config` as YAML that reads back to the same, with their descriptions as comments."""
    return "".join(_settings(config))


def _settings(config: FrozenConfig) -> Iterator[str]:
    plain = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        yield _comment(field.description or "")
        value = getattr(config, name)
        parts = value if isinstance(value, tuple) else ()
        if isinstance(value, FrozenConfig):
            yield f"{name}:\n{_indented(value, '  ')}"
        elif parts and isinstance(parts[0], FrozenConfig):
            yield f"{name}:\n" + "".join(f"  -\n{_indented(part, '    ')}" for part in parts)
        else:
            yield _plain(name, plain[name])


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in wrap(text, _WIDTH - 2))


def _indented(config: FrozenConfig, by: str) -> str:
    return indent("".join(_settings(config)), by)


def _plain(name: str, value: Any) -> str:
    """A setting that has no descriptions of its own: lists and mappings in one line, where they fit."""
    if isinstance(value, list | dict):
        return f"{name}: {_dumped(value, flow=True)}"
    return _dumped({name: value}, flow=False)


def _dumped(value: Any, *, flow: bool) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=_WIDTH)
