"""Tables in Markdown and on a terminal, and HTML pages that need nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).with_name("templates")


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table of which the first row is the heading; columns but the first are flush right."""
    heading, *others = rows
    rule = ["---", *["--:"] * (len(heading) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (heading, rule, *others)]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Lines with columns of even width; those numbered in `left` are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, left)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int], left: Collection[int]) -> list[str]:
    pairs = enumerate(zip(row, widths, strict=True))
    return [cell.ljust(width) if number in left else cell.rjust(width) for number, (cell, width) in pairs]


def template(name: str, **filters: Any) -> Any:
    """A template of the folder ``templates``: values are escaped, and a missing one is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters |= filters
    return environment.get_template(name)


def data_uri(data: bytes | str, kind: str) -> str:
    """`data` as a URI that a page can hold, such as of `kind` ``image/svg+xml``."""
    raw = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{b64encode(raw).decode()}"
