"""Comparisons as tables: in Markdown, on a terminal, and as HTML pages that need nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritlm_core.files import write_json

MISSING = "n/a"
_TEMPLATES = Path(__file__).with_name("templates")
Cell = Callable[[Mapping[str, Any]], str | None]
"""From what was measured to the text of a cell; None where there is no figure."""


@dataclass(frozen=True)
class Column:
    """A column: heading, what it shows in a few words, and its cells."""

    heading: str
    about: str
    cell: Cell


def at(measured: Any, *path: str) -> Any:
    """The entry at a path of keys; None where there is none."""
    for key in path:
        measured = measured.get(key) if isinstance(measured, Mapping) else None
    return measured


def number(*path: str, digits: int = 0, scale: float = 1.0) -> Cell:
    """A figure, `scale` times what lies at `path`."""

    def cell(measured: Mapping[str, Any]) -> str | None:
        value = at(measured, *path)
        return None if value is None else f"{scale * value:.{digits}f}"

    return cell


def interval(*path: str, digits: int = 0, scale: float = 1.0) -> Cell:
    """The bounds ``…_low`` and ``…_high`` of a figure."""
    low, high = (number(*path[:-1], f"{path[-1]}_{end}", digits=digits, scale=scale) for end in ("low", "high"))

    def cell(measured: Mapping[str, Any]) -> str | None:
        bounds = low(measured), high(measured)
        return None if None in bounds else f"{bounds[0]}-{bounds[1]}"

    return cell


@dataclass(frozen=True)
class Table:
    """A table with what is to be said below it."""

    rows: Sequence[Sequence[str]]  # the heading first
    notes: Sequence[str]  # on what the figures rest, and what is missing why
    about: Mapping[str, str]  # heading → what the column shows
    left: Collection[int] = (0,)  # columns that are flush left; the others are flush right

    @classmethod
    def of(
        cls, first: str, columns: Sequence[Column], results: Sequence[Mapping[str, Any]], notes: Sequence[str]
    ) -> Table:
        """One row for each result, which has a `name`; `first` is the heading above the names."""
        heading = [first, *(column.heading for column in columns)]
        rows = [[result["name"], *(column.cell(result) or MISSING for column in columns)] for result in results]
        return cls([heading, *rows], notes, {column.heading: column.about for column in columns})

    def markdown(self) -> str:
        """The table, and the notes as a list."""
        heading, *others = self.rows
        rule = ["---" if number in self.left else "--:" for number in range(len(heading))]
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in (heading, rule, *others)]
        lines = ["| " + " | ".join(row) + " |" for row in escaped]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def plain(self) -> str:
        """The same for a terminal, columns aligned."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = ["  ".join(self._padded(row, widths)).rstrip() for row in self.rows]
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def _padded(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        pairs = enumerate(zip(row, widths, strict=True))
        return [cell.ljust(width) if number in self.left else cell.rjust(width) for number, (cell, width) in pairs]

    def page(self, template_name: str, **values: Any) -> str:
        """One HTML file that needs nothing else: the table, and what the template shows of `values`."""
        return template(template_name).render(table=self, missing=MISSING, **values)


def write_report(out: Path, name: str, report: Mapping[str, Any], table: Table, page: str) -> None:
    """Put ``NAME.json``, ``NAME.md`` and ``NAME.html`` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", report)
    (out / f"{name}.md").write_text(table.markdown(), encoding="utf-8")
    (out / f"{name}.html").write_text(page, encoding="utf-8")


def template(name: str) -> Any:
    """A template of the folder ``templates``: values are escaped, and a missing one is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": percent, "bounded": lambda share: min(max(share, 0.0), 1.0)}
    return environment.get_template(name)


def percent(share: float | None) -> str:
    """Per cent with one digit."""
    return MISSING if share is None else f"{100 * share:.1f}"


def data_uri(data: bytes | str, kind: str) -> str:
    """`data` as a URI that a page can hold, such as of `kind` ``image/svg+xml``."""
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{b64encode(raw).decode()}"
