"""The report of a suite as a table on a terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MISSING = "n/a"
_ABOUT = (
    ("sum", "accuracy in %: how often the good side has the higher log-likelihood; a tie counts half"),
    ("mean", "the same by log-likelihood per token"),
    ("95 %", "percentile bootstrap over items"),
    ("chance", "guessing evenly"),
    ("shorter", "always taking the side with fewer tokens: what raw sums reach without knowing anything"),
    ("items", "of those scored; the pairs of one item, such as voices, are averaged first"),
    ("skipped", "pairs that could not be scored; each is listed with its reason in suite.json"),
    (
        "published elsewhere",
        "figures of others on the whole official set, not measured here: B Spirit LM Base, E Expressive",
    ),
)
_REASONS_SHOWN = 20


def cells(report: Mapping[str, Any]) -> list[list[str]]:
    """The heading, then a row for each task, direction and model."""
    heading = [
        "task",
        "",
        "model",
        "sum",
        "95 %",
        "mean",
        "95 %",
        "chance",
        "shorter",
        "items",
        "skipped",
        "published elsewhere",
    ]
    return [heading, *map(_row, report["measures"])]


def _row(measure: Mapping[str, Any]) -> list[str]:
    quoted = [f"{name.removeprefix('Spirit LM ')[0]} {value:.1f}" for name, value in measure["published"].items()]
    return [
        measure["task"],
        measure["direction"],
        measure["model"],
        *_accuracy(measure, "sum"),
        *_accuracy(measure, "mean"),
        percent(measure["chance"]),
        percent(measure["shorter"]),
        str(measure["items"]),
        str(len(measure["skipped"])),
        ", ".join(quoted),
    ]


def _accuracy(measure: Mapping[str, Any], name: str) -> tuple[str, str]:
    low, high = measure[f"{name}_low"], measure[f"{name}_high"]
    return percent(measure[name]), MISSING if low is None else f"{100 * low:.1f}-{100 * high:.1f}"


def percent(share: float | None) -> str:
    """Per cent with one digit."""
    return MISSING if share is None else f"{100 * share:.1f}"


def plain(report: Mapping[str, Any]) -> str:
    """The table with aligned columns, and below it why pairs were skipped."""
    rows = cells(report)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 3 or i == 11 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), *_notes(report["measures"])])


def _notes(measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was skipped first, and where; one line for a reason."""
    places: dict[str, list[str]] = {}
    for measure in measures:
        if skipped := measure["skipped"]:
            where = f"{measure['task']} {measure['direction']}, {measure['model']} ({len(skipped)})"
            places.setdefault(skipped[0]["reason"], []).append(where)
    return [f"skipped pairs of {'; '.join(where)}: {reason}" for reason, where in places.items()]


def page(report: Mapping[str, Any]) -> str:
    """One HTML file that needs nothing else; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["percent"] = percent
    heading, *rows = cells(report)
    drawn: str = environment.get_template("suite.html.j2").render(
        heading=heading,
        rows=rows,
        about=_ABOUT,
        measures=report["measures"],
        tasks=report["tasks"],
        settings=report["settings"],
        shown=_REASONS_SHOWN,
        missing=MISSING,
    )
    return drawn
