"""Ctrl-C: a line at once, whatever the main thread is busy with; out within seconds; at once the second time."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

GRACE_SECONDS = 2.5
STATUS = 128 + signal.SIGINT
"""The exit status of an interrupted command, as shells have it."""

_LINE = "\nspiritlm: stopping … finished work is kept, run again to go on (Ctrl-C again ends it now)\n"
_first = threading.Lock()
"""Taken by the first Ctrl-C, and never given back."""


def asked() -> bool:
    """Whether somebody has pressed Ctrl-C."""
    return _first.locked()


def answer_ctrl_c() -> None:
    """Listen for SIGINT in a thread of its own: the main thread cannot answer while it is inside a library.

    Everything in a lake is written whole or not at all, so that ending at any moment loses nothing. A command with a
    handler of its own (a server that lets requests finish) is left alone, and so is a process that ignores the signal.
    """
    if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_DFL):
        return
    ends, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_listen, args=(ends,), name="ctrl-c", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _answer()
    signal.default_int_handler(number, frame)


def _answer() -> None:
    """Say that we stop, unless that has been said."""
    if _first.acquire(blocking=False):
        os.write(2, _LINE.encode())


def _listen(ends: int) -> None:
    count = 0
    while number := os.read(ends, 1):
        if number[0] != signal.SIGINT or signal.getsignal(signal.SIGINT) is not _interrupt:
            continue
        count += 1
        if count > 1:
            os._exit(STATUS)
        _answer()
        leave_within(GRACE_SECONDS, STATUS)


def leave_within(seconds: float, status: int, *, main_may_work: bool = False) -> None:
    """End this process with `status` after so long, unless it has ended by then, or its main thread may still work."""

    def leave() -> None:
        if not (main_may_work and threading.main_thread().is_alive()):
            os._exit(status)

    last = threading.Timer(seconds, leave)
    last.daemon = True
    last.start()
