"""Progress on the terminal: one line per stage, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Meter(Protocol):
    """Shows how far one stage is."""

    def __call__(self, fraction: float, message: str) -> None:
        """Show `fraction` (0 to 1) and a short line."""


class Console:
    """Standard error as a place for progress; bars where it is a terminal, a line per stage where it is not."""

    def __init__(self) -> None:
        """Standard output stays free for results."""
        self.rich = RichConsole(stderr=True)

    def say(self, text: str) -> None:
        """Print one line."""
        self.rich.print(text, highlight=False, markup=False)

    @contextmanager
    def stage(self, name: str, about: str) -> Iterator[Meter]:
        """A meter for one stage, shown while the block runs."""
        if not self.rich.is_terminal:
            self.say(f"  {name:<11} … {about}")
            yield lambda fraction, message: None  # noqa: ARG005
            return
        columns = (
            TextColumn("  {task.fields[stage]:<11}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=self.rich, transient=True) as bars:
            bar = bars.add_task(about, total=1.0, stage=name)
            yield lambda fraction, message: bars.update(bar, completed=fraction, description=message)
