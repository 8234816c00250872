"""``spiritlm plan`` and ``diff``: what a run would do and why, and what changed; without Prefect and Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from flows.cli.flow import console_on, some
from spiritlm_core.cli.options import (
    DEFAULT_LAKE,
    JsonOption,
    LakeOption,
    RecipeArgument,
    SetOption,
    SourceOption,
    answer,
    no_lake,
)
from spiritlm_core.lake.care import describe_size
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.changes import Since, changes, since_last_run
from spiritlm_core.plan.graph import RunPlan, plan_graph
from spiritlm_core.plan.preview import preview, totals
from spiritlm_core.quality.selection import would_drop
from tasks.progress import LOOKING, Console

if TYPE_CHECKING:
    from spiritlm_core.recipe import Recipe


def plan(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Plan this stage and what it is made from.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what `spiritlm run RECIPE` would compute and what it would reuse, and which change causes that.

    Nothing is computed and no server is started. Seconds are those of one process: what a recording, a row or a model
    took the last time.
    """
    answer(lambda: planned(recipe, lake, source or [], set_ or [], until), show_plan, as_json=as_json)


def planned(
    recipe: str, lake: str, sources: list[str], overrides: list[str], until: str | None = None, *, refit: bool = False
) -> dict[str, Any]:
    """The preview of a run as JSON values. Raises SpiritLMError if it could not run."""
    _, stages, since = plan_recipe(recipe, lake, sources, overrides, until, refit=refit)
    return previewed(stages, lake, since)


def plan_recipe(
    recipe: str, lake: str, sources: list[str], overrides: list[str], until: str | None = None, *, refit: bool = False
) -> tuple[Recipe, RunPlan, Since]:
    """The recipe, the plans of its stages, and the settings that changed since it ran last. Raises SpiritLMError."""
    from flows.graphs.speech_lm import speech_lm, targets
    from flows.recipes import load_recipe

    loaded, opened = load_recipe(recipe, sources, overrides), Lake(lake)
    graph = speech_lm(loaded)
    with Console().stage("plan", LOOKING, brief=True):
        stages = plan_graph(graph, opened, *targets(graph, until), refit=refit)
    return loaded, stages, since_last_run(opened, loaded.name, loaded, speech_lm)


def previewed(stages: RunPlan, lake: str, *since: Since) -> dict[str, Any]:
    """What a run of `stages` would do, as JSON values; `since`: the settings that changed, where that is known."""
    opened = Lake(lake)
    previews = preview(stages, opened, *since)
    told = {stage.name: stage.to_dict() for stage in previews}
    if (dropped := would_drop(stages.stages, opened)) is not None:
        told["selection"]["filters"] = dropped
    notes = [*stages.notes, *([] if opened.is_begun() else [no_lake(opened.uri)])]
    about = {"recipe": stages.recipe, "lake": opened.uri, "notes": notes}
    return {**about, "stages": told, "to_compute": totals(previews)}


def show_plan(result: dict[str, Any], out: TextIO) -> None:
    """Print a preview: one line per stage, and what is to be computed in all."""
    from rich.table import Table

    table = Table("stage", "what", "rows", "hours", "seconds", "to write", "why")
    for column in table.columns[2:6]:
        column.justify = "right"
    for name, stage in result["stages"].items():
        table.add_row(name, *_cells(stage))
    console = console_on(out, 120)
    console.print(f"{result['recipe']} on {result['lake']}", soft_wrap=True)
    console.print(table)
    for note in result["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    for broken, count in result["stages"].get("selection", {}).get("filters", {}).items():
        console.print(f"filter: {broken} leaves out {count} segments", soft_wrap=True)
    console.print(_total(result["to_compute"]), soft_wrap=True)


def _cells(stage: dict[str, Any]) -> list[str]:
    parts = f"{stage['new']} of {stage['shards']} shards new" if stage["status"] == "partly new" else stage["status"]
    rows, hours = stage["rows"], stage["hours"]
    about = [parts, "" if rows is None else str(rows), f"{hours:.2f}" if hours else ""]
    if not stage["new"]:
        return [*about, "", "", ""]
    seconds = "unknown" if stage["seconds"] is None else f"{stage['seconds']:.0f}"
    size = "unknown" if stage["size"] is None else describe_size(stage["size"])
    return [*about, seconds, size, _why(stage["why"])]


def _why(reasons: list[dict[str, Any]]) -> str:
    """The reasons, those of stages before on one list."""
    upstream = [f"`{reason['name']}`" for reason in reasons if reason["cause"] == "upstream"]
    others = [reason["text"] for reason in reasons if reason["cause"] != "upstream"]
    return "; ".join([*others, *([f"upstream {', '.join(upstream)}"] if upstream else [])])


def _total(work: dict[str, Any]) -> str:
    if not work["stages"]:
        return "nothing to compute"
    stages = f"{work['stages']} stage{'s' if work['stages'] > 1 else ''} to compute"
    if len(work["unknown"]) == work["stages"]:
        return f"{stages}; how long that takes is unknown: none of them ran here before"
    unknown = f", besides {', '.join(work['unknown'])}, which never ran here" if work["unknown"] else ""
    return f"{stages}: about {work['seconds']:.0f} s in one process, {describe_size(work['size'])} to write{unknown}"


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
    opened = Lake(lake)
    loaded, stages, since = plan_recipe(recipe, lake, sources, overrides)
    return {"recipe": loaded.name, "lake": opened.uri, **changes(stages, opened, snapshot, since).to_dict()}


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
                yield from some(changed[how], "    ")
        if rejected := changed["rejected"]:
            yield f"  {table}: {len(rejected)} rejected"
            yield from some([f"{name}: {reason}" for name, reason in rejected.items()], "    ")
