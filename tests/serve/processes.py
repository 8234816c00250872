"""`spiritlm serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATTERN = re.compile(r"http://127\.0\.0\.1:\d+")


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def resident(self) -> int:
        """Memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self, sig: int = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.process.send_signal(sig)
        return self.process.wait(30)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from spiritlm_core.cli import main; main()", "serve", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )


@contextmanager
def served(*arguments: object, seconds: float = 240) -> Iterator[Served]:
    """The server on a free port, once it says that it is there; ended in any case."""
    found = Served(start(*arguments, "--port", 0))
    ready = threading.Event()

    def listen() -> None:
        for line in found.process.stdout or ():
            found.lines.append(line)
            if match := PATTERN.search(line):
                found.url = match[0]
                ready.set()
        ready.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + seconds
        assert ready.wait(deadline - time.monotonic()), "".join(found.lines)
        assert found.url, "".join(found.lines)
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait(10)
        reader.join(10)
