"""What several benchmarks do alike: find recordings, and measure the memory of a process and the machine."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def recordings(path: Path) -> list[Path]:
    """The recordings of a folder, or one."""
    from spiritlm_core.intake.sniff import AUDIO_SUFFIXES

    return sorted(each for each in path.rglob("*") if each.suffix in AUDIO_SUFFIXES) if path.is_dir() else [path]


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` gives in a new process, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def peak_memory() -> int:
    """Most bytes that this process has had so far, on Linux; `ru_maxrss` begins with those of who started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def matrix_speed(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product on all cores, or on the GPU."""
    import torch  # a third of a gigabyte, which must not count where it is not used

    gpu = torch.cuda.is_available()
    size = 8192 if gpu else 2048
    a = torch.randn(size, size, device="cuda" if gpu else "cpu").to(dtype)
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        a @ a
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return 2 * size**3 / min(times)
