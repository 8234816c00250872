"""Commands that run a flow, with a Prefect API if there is something to compute, and the summary that they end with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from spiritlm_core.errors import LakeError
from spiritlm_core.metrics.verdicts import told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spiritlm_core.plan.graph import Graph


def run_recipe(
    flow: str,
    recipe: str,
    lake: str,
    sources: list[str],
    overrides: list[str],
    *,
    until: str | None = None,
    refit: bool = False,
) -> dict[str, Any]:
    """Run the stages of `recipe` up to `until`; see :func:`run_or_reuse`."""
    from tasks.progress import Console

    with Console().stage("plan", "reading the recipe", brief=True):
        from flows.graphs.speech_lm import speech_lm, targets
        from flows.recipes import load_recipe

        graph = speech_lm(load_recipe(recipe, sources, overrides))
        names = targets(graph, until)
    given: dict[str, Any] = {"recipe": recipe, "lake": lake, "sources": sources, "overrides": overrides, "refit": refit}
    if flow == "pipeline":
        given["until"] = until
    return run_or_reuse(flow, given, graph, names, refit=refit)


def run_or_reuse(
    name: str, parameters: dict[str, Any], graph: Graph, until: Sequence[str], *, refit: bool = False
) -> dict[str, Any]:
    """The result of a flow, without Prefect where the lake holds everything and no server is configured.

    What can be wrong with the graph and its sources is found before a server is started. Under ``startup_seconds`` it
    says how long Prefect took to start. Raises SpiritLMError: the flow failed.
    """
    from spiritlm_core.lake.lake import Lake
    from tasks.account import reuse
    from tasks.prefect_server import api, configured_api

    graph.wanted(*until)
    if not configured_api():
        result = reuse(graph, Lake(parameters["lake"]), *until, refit=refit)
        if result is not None:
            return {**result, "startup_seconds": 0.0}
    began = time.monotonic()
    with api(load="flows.pipeline"):
        flow = getattr(import_module("flows.pipeline"), name)
        from tasks.flow_runs import run_flow

        ready = time.monotonic()
        return {**run_flow(flow, **parameters), "startup_seconds": round(ready - began, 1)}


def artifact_folder(lake: str, result: dict[str, Any], stage: str) -> Path:
    """The files of `stage` in the result of a flow, on this machine. Raises LakeError."""
    from spiritlm_core.lake.lake import Lake

    opened, key = Lake(lake), result["stages"][stage]["fingerprint"]
    artifact = opened.read_artifact(stage, key)
    if artifact is None:
        raise LakeError(f"{opened.uri} has no {stage} {key[:12]} any more; run again")
    return opened.artifact_folder(artifact)


NAMED = 10  # how many names of a kind are printed; ``--json`` has all


def some(names: Sequence[str], indent: str = "  ") -> Iterator[str]:
    """Lines that name the first few, and say how many there are besides."""
    yield from (f"{indent}{name}" for name in names[:NAMED])
    if len(names) > NAMED:
        yield f"{indent}and {len(names) - NAMED} more; --json names all"


def console_on(out: TextIO, width: int = 110) -> Console:
    """What prints plain text and tables to `out`, so many columns wide where that is no terminal."""
    from rich.console import Console

    return Console(file=out, highlight=False, markup=False, width=None if out.isatty() else width)


COLUMNS = ("stage", "in", "out", "rejected", "hours", "shards", "computed", "reused", "seconds")
PLACES = {"report": "report", "suite": "suite", "speech_tokenizer": "speech tokenizer", "model": "published model"}


def print_summary(result: dict[str, Any], out: TextIO) -> None:
    """Print the summary of a run."""
    console = console_on(out)
    console.print(stage_table(result["stages"]))
    if result.get("samples"):
        from spiritlm_core.evaluate.heldout.findings import lines

        for line in lines(result["samples"]):
            console.print(line, soft_wrap=True)
    for line in told(result.get("verdicts", {}).get("verdicts", ())):
        console.print(line, soft_wrap=True)
    for name, label in PLACES.items():
        if name in result:
            console.print(f"{label + ':':<16} {result[name]}", soft_wrap=True)
    for note in result["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    stages = sum(stage["seconds"] for stage in result["stages"].values())
    started = result["startup_seconds"]
    before = f"{started:.0f} s until Prefect was there" if started else "Prefect was not needed"
    console.print(f"done in {result['seconds']:.0f} s: {before}, {stages:.0f} s stages")


def stage_table(stages: dict[str, dict[str, Any]]) -> Table:
    """One row per stage."""
    from rich.table import Table

    table = Table(*COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, report in stages.items():
        table.add_row(name, *_cells(report))
    return table


def _cells(report: dict[str, Any]) -> list[str]:
    shards = [str(report[key]) for key in ("shards_total", "shards_computed", "shards_reused")]
    seconds = f"{report['seconds']:.1f}"
    if report["kind"] == "artifact":
        return ["", "", "", "", *shards, seconds]
    rows = [str(report[key]) for key in ("rows_in", "rows_out", "rejected")]
    hours = f"{report['hours']:.2f}" if report["hours"] else ""
    return [*rows, hours, *shards, seconds]
