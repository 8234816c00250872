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
SURE_SECONDS, SURE_FRACTION = 3.0, 0.01  # of a stage must have passed before it is said what is left


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
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
        )
        with Bars(*columns, console=self.rich, transient=True) as bars:
            bar, left = bars.add_task(about, total=1.0, stage=name, left=""), TimeLeft()
            yield lambda done, message: bars.update(bar, completed=done, description=message, left=left(done))

    @contextmanager
    def _lines(self, name: str, about: str) -> Iterator[Progress]:
        self.say(f"  {name:<11} … {about}")
        latest, ended, began, left = ["", ""], threading.Event(), time.monotonic(), TimeLeft()

        def show(fraction: float, message: str) -> None:
            latest[:] = f"{fraction:.0%}  {message}, ", left(fraction)

        def repeat() -> None:
            while not ended.wait(LINE_SECONDS):
                self.say(f"  {name:<11} … {latest[0]}{time.monotonic() - began:.0f} s{latest[1] and ', ' + latest[1]}")

        threading.Thread(target=repeat, name=f"progress-{name}", daemon=True).start()
        try:
            yield show
        finally:
            ended.set()


class TimeLeft:
    """The time that is left at the pace since the first report, as words; nothing while that is a guess."""

    def __init__(self) -> None:
        """Work may have been done before the first report: a fit that goes on from a checkpoint."""
        self._first: tuple[float, float] | None = None

    def __call__(self, fraction: float) -> str:
        """What is left when `fraction` is done, such as ``about 3 min left``."""
        now = time.monotonic()
        began, before = self._first = self._first or (now, fraction)
        if now - began < SURE_SECONDS or fraction - before < SURE_FRACTION or fraction >= 1:
            return ""
        return f"about {duration((now - began) * (1 - fraction) / (fraction - before))} left"


def duration(seconds: float) -> str:
    """Seconds for people: ``40 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
