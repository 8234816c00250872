"""The end of a run on the terminal: a table of the stages, the figures, three samples, where things are."""

from __future__ import annotations

from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

COLUMNS = ("stage", "in", "out", "rejected", "hours", "shards", "computed", "reused", "seconds")
PLACES = {"report": "report", "suite": "suite", "speech_tokenizer": "speech tokenizer", "model": "published model"}


def print_summary(result: dict[str, Any], out: TextIO) -> None:
    """Print the summary of a run."""
    console = Console(file=out, highlight=False, width=None if out.isatty() else 110)
    console.print(stage_table(result["stages"]))
    if result.get("samples"):
        from spiritlm_core.evaluate.heldout.samples import lines

        for line in lines(result["samples"]):
            console.print(line, markup=False, soft_wrap=True)
    for name, label in PLACES.items():
        if name in result:
            console.print(f"{label + ':':<16} {result[name]}", soft_wrap=True)
    for note in result["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    stages = sum(stage["seconds"] for stage in result["stages"].values())
    started = result["startup_seconds"]
    before = f"{started:.0f} s until Prefect was there" if started else "Prefect was not needed"
    console.print(f"done in {result['seconds']:.0f} s: {before}, {stages:.0f} s stages")


def stage_table(stages: dict[str, dict[str, Any]]) -> Table:
    """One row per stage."""
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
