"""Progress on the terminal: one line per stage, on standard error."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console as RichConsole
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from spiritlm_core.lake.stage import Progress

LINE_SECONDS = 4.0  # after so long without a line it is said how far a stage is, or what the run waits for
LOOKING = "what is there, and what is new"  # what planning is about
SURE_SECONDS, SURE_FRACTION = 3.0, 0.01  # of a stage must have passed before it is said what is left


class Console:
    """Standard error as a place for progress: a bar where it is a terminal, a line now and then where it is not."""

    _meters, _spoken = 0, time.monotonic()  # of this process: stages shown now, and when something was said last

    def __init__(self) -> None:
        """Standard output stays free for results."""
        self.rich = RichConsole(stderr=True)

    def say(self, text: str) -> None:
        """Print one line; a log that is full or closed holds up no work."""
        Console._spoken = time.monotonic()
        with suppress(OSError):
            self.rich.print(text, highlight=False, markup=False, soft_wrap=True)

    @property
    def is_silent(self) -> bool:
        """Whether no stage is shown, and nothing was said for so long that people wonder."""
        return not Console._meters and self._patience() <= 0

    @staticmethod
    def _patience() -> float:
        """Seconds until something should be said."""
        return Console._spoken + LINE_SECONDS - time.monotonic()

    @contextmanager
    def stage(self, name: str, about: str, *, brief: bool = False) -> Iterator[Progress]:
        """A meter for one stage, shown while the block runs; a `brief` one is in no log unless it takes long."""
        Console._meters += 1
        try:
            with self._bar(name, about) if self.rich.is_terminal else self._lines(name, about, brief=brief) as meter:
                yield meter
        finally:
            Console._meters -= 1

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
            try:
                yield lambda done, message: bars.update(bar, completed=done, description=message, left=left(done))
            finally:
                Console._spoken = time.monotonic()

    @contextmanager
    def _lines(self, name: str, about: str, *, brief: bool) -> Iterator[Progress]:
        if not brief:
            self.say(f"  {name:<11} … {about}")
        latest, ended, began, left = (
            [f"{about}, " if brief else "", ""],
            threading.Event(),
            time.monotonic(),
            TimeLeft(),
        )

        def show(fraction: float, message: str) -> None:
            latest[:] = f"{fraction:.0%}  {message}, ", left(fraction)

        def repeat() -> None:
            while not ended.wait(max(0.01, self._patience())):
                if self._patience() <= 0:
                    took = f"{time.monotonic() - began:.0f} s"
                    self.say(f"  {name:<11} … {latest[0]}{took}{latest[1] and ', ' + latest[1]}")

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
