"""The end of a run on the terminal: a table of the stages, the figures, three samples, where things are."""

from __future__ import annotations

from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

COLUMNS = ("stage", "rows in", "rows out", "rejected", "hours", "shards", "computed", "reused", "seconds")


def print_summary(result: dict[str, Any], out: TextIO) -> None:
    """Print the summary of a run."""
    console = Console(file=out, highlight=False)
    console.print(stage_table(result["stages"]))
    for sample in result.get("samples", []):
        _print_sample(console, sample)
    if "report" in result:
        console.print(f"report:          {result['report']}", soft_wrap=True)
    if "model" in result:
        console.print(f"published model: {result['model']}", soft_wrap=True)
    console.print(f"done in {result['seconds']:.0f} s")


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


def _print_sample(console: Console, sample: dict[str, Any]) -> None:
    console.rule(str(sample.get("task", sample.get("kind", "sample"))), align="left")
    for key in ("prompt", "output", "generated", "answer", "reference"):
        if key in sample:
            console.print(f"{key:>10}: {_short(str(sample[key]))}", markup=False, soft_wrap=True)


def _short(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
