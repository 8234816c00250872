"""Looking at other processes while they run: what they have done so far decides, never how long it took."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

PATIENCE = 600.0
"""Seconds until a test gives up: more than the slowest machine needs."""

T = TypeVar("T")


def wait_for(look: Callable[[], T], process: subprocess.Popen | None = None, every: float = 0.02) -> T:
    """The first thing other than nothing that `look` returns; an AssertionError if `process` ends before it does.

    It looks again `every` so many seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        ended = process is not None and process.poll() is not None
        assert not ended or look(), f"it ended with status {process.returncode} before that happened"
        assert time.monotonic() < deadline, f"it did not happen within {PATIENCE:.0f} s"
        time.sleep(every)
    return seen


def descendants(process: int, words: str = "") -> list[psutil.Process]:
    """The processes that `process` started, and that those started, whose command line holds `words`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process).children(recursive=True)
        return [one for one in started if words in command_line(one)]
    return []


def command_line(process: psutil.Process) -> str:
    """The command of a process; empty once it has ended, though its parent has not asked for its status yet."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie counts as the first
        return ""


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to each that still runs."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def all_end(processes: list[psutil.Process]) -> bool:
    """Whether all of them end by themselves."""
    return psutil.wait_procs(processes, timeout=PATIENCE)[1] == []


def kill_group(process: subprocess.Popen) -> bool:
    """SIGKILL to `process`, the first of its group, and to all it started; whether it was still running."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running
