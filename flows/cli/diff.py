"""``spiritlm diff``: which recordings, texts and settings changed since a run; needs neither Prefect nor Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TextIO

import typer

from flows.cli.plan import plan_recipe
from spiritlm_core.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RecipeArgument, SetOption, SourceOption
from spiritlm_core.cli.results import answer

_NAMED = 10
"""How many names of a kind are printed; ``--json`` has all."""


def diff(
    recipe: RecipeArgument = "quickstart",
    snapshot: Annotated[
        str | None,
        typer.Argument(metavar="[SNAPSHOT]", help="Fingerprint of a table, or its beginning; else: the last run."),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what changed since RECIPE ran last, or since SNAPSHOT: recordings and texts by name, and settings."""
    answer(lambda: _changes(recipe, snapshot, lake, source or [], set_ or []), _show, as_json=as_json)


def _changes(recipe: str, snapshot: str | None, lake: str, sources: list[str], overrides: list[str]) -> dict[str, Any]:
    from spiritlm_core.lake.lake import Lake
    from spiritlm_core.plan.changes import changes

    opened = Lake(lake)
    loaded, stages, since = plan_recipe(recipe, lake, sources, overrides)
    return {"recipe": loaded.name, "lake": opened.uri, **changes(stages, loaded, opened, snapshot, since).to_dict()}


def _show(result: dict[str, Any], out: TextIO) -> None:
    first = ", which never ran there" if result["first"] else ""
    print(f"{result['recipe']} on {result['lake']}{first}", file=out)
    lines = [*_items(result["items"]), *map(_setting, result["settings"])]
    for line in lines or ["  nothing changed"]:
        print(line, file=out)


def _setting(reason: dict[str, Any]) -> str:
    return f"  {reason['name']}: {reason['text']}" if reason["cause"] == "version" else f"  {reason['text']}"


def _items(tables: dict[str, dict[str, Any]]) -> Iterator[str]:
    for table, changed in tables.items():
        for how, count in changed["counts"].items():
            if count:
                yield f"  {table}: {count} {how}"
                yield from _names(changed[how])
        if rejected := changed["rejected"]:
            yield f"  {table}: {len(rejected)} rejected"
            yield from _names([f"{name}: {reason}" for name, reason in rejected.items()])


def _names(names: list[str]) -> Iterator[str]:
    yield from (f"    {name}" for name in names[:_NAMED])
    if len(names) > _NAMED:
        yield f"    and {len(names) - _NAMED} more; --json names all"
