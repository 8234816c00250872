"""How far a command is, on standard error where somebody looks at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

import typer

T = TypeVar("T")


def in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time; a terminal shows how many are done."""
    shown = len(items) > size and sys.stderr.isatty()
    for first in range(0, len(items), size):
        if shown:
            typer.echo(f"\r{first}/{len(items)}", err=True, nl=False)
        yield items[first : first + size]
    if shown:
        typer.echo("\r\033[K", err=True, nl=False)
