"""Progress on the terminal: one line per stage, on standard error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console as RichConsole
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from spiritlm_core.lake.stage import Progress

LINE_SECONDS = 10.0  # how often a stage says how far it is where nobody looks at a bar


class Console:
    """Standard error as a place for progress: a bar where it is a terminal, a line now and then where it is not."""

    def __init__(self) -> None:
        """Standard output stays free for results."""
        self.rich = RichConsole(stderr=True)

    def say(self, text: str) -> None:
        """Print one line; a log that is full or closed holds up no work."""
        with suppress(OSError):
            self.rich.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, about: str) -> Iterator[Progress]:
        """A meter for one stage, shown while the block runs."""
        with self._bar(name, about) if self.rich.is_terminal else self._lines(name, about) as meter:
            yield meter

    @contextmanager
    def _bar(self, name: str, about: str) -> Iterator[Progress]:
        columns = (
            TextColumn("  {task.fields[stage]:<11}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Bars(*columns, console=self.rich, transient=True) as bars:
            bar = bars.add_task(about, total=1.0, stage=name)
            yield lambda fraction, message: bars.update(bar, completed=fraction, description=message)

    @contextmanager
    def _lines(self, name: str, about: str) -> Iterator[Progress]:
        self.say(f"  {name:<11} … {about}")
        latest, ended, began = [""], threading.Event(), time.monotonic()

        def show(fraction: float, message: str) -> None:
            latest[0] = f"{fraction:.0%}  {message}, "

        def repeat() -> None:
            while not ended.wait(LINE_SECONDS):
                self.say(f"  {name:<11} … {latest[0]}{time.monotonic() - began:.0f} s")

        threading.Thread(target=repeat, name=f"progress-{name}", daemon=True).start()
        try:
            yield show
        finally:
            ended.set()
