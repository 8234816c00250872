"""What this process computes on: CPU cores and what multiplies on them, a GPU, and its process group."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock


def core_count() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_share() -> int:
    """The cores of this process, shared fairly with the ranks of its process group on the same machine."""
    return max(1, core_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def all_cores(threads: int | None = None) -> Iterator[None]:
    """Let torch use so many `threads`, by default the cores that are this process's share; a worker starts with one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or core_share())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_amx() -> bool:
    """Whether this CPU multiplies bf16 matrices in tiles (Intel AMX)."""
    import torch

    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


_CHANGING = Lock()
_wishes: list[tuple[object | None, str]] = []
"""Torch's precision as it was, then those that are wished now: all threads share it, so the last one counts."""


@contextmanager
def large_products(*, large: bool = True) -> Iterator[None]:
    """Multiply float32 matrices on the CPU by what is fast for large ones, or for small ones; the sums are as exact.

    oneDNN does with AVX-512 what a CPU can, MKL half of that on one that is not Intel's; but oneDNN takes 10 µs to
    begin, and longer for sizes that it has not seen. Torch calls it where ``"medium"`` precision is asked for, which
    lowers nothing on x86 without bf16 tiles. On other CPUs and beside a GPU it would, and nothing is changed; nor where
    somebody chose a precision by the newer settings of torch, which then refuses to tell the older one.
    """
    wish = _wish("medium" if large else "highest") if _medium_is_exact() else None
    try:
        yield
    finally:
        if wish is not None:
            _withdraw(wish)


def _wish(precision: str) -> object | None:
    import torch

    with _CHANGING:
        try:
            before = torch.get_float32_matmul_precision()
        except RuntimeError:
            return None
        if not _wishes:
            _wishes.append((None, before))
        wish = object()
        _wishes.append((wish, precision))
        torch.set_float32_matmul_precision(precision)
    return wish


def _withdraw(wish: object) -> None:
    import torch

    with _CHANGING:
        _wishes[:] = [one for one in _wishes if one[0] is not wish]
        torch.set_float32_matmul_precision(_wishes[-1][1])
        if len(_wishes) == 1:
            _wishes.clear()


def products_are_large() -> bool:
    """Whether :func:`large_products` is in force."""
    with _CHANGING:
        return bool(_wishes) and _wishes[-1][1] == "medium"


@cache
def _medium_is_exact() -> bool:
    return platform.machine() in ("x86_64", "AMD64") and not has_amx() and pick_device() == "cpu"


def pick_device() -> str:
    """``"cuda"`` where there is one, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group that ``torchrun`` describes in the environment; nothing for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
