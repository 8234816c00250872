"""The CPU cores of this process, and torch on all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def core_count() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def all_cores() -> Iterator[None]:
    """Let torch use every core this process may run on; a Ray worker is started with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(core_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)
