"""`spiritlm serve` and `spiritlm explore` as processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.watching import PATIENCE

SERVE, EXPLORE = (
    f"import sys; sys.argv.insert(1, '{command}'); from spiritlm_core.cli import main; main()"
    for command in ("serve", "explore")
)
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
        return self.process.wait(PATIENCE)

    @property
    def depth(self) -> int:
        """Requests that have a place."""
        return httpx.get(f"{self.url}/health", timeout=PATIENCE).json()["queue_depth"]


def start(*arguments: object, code: str = SERVE, **environment: str) -> subprocess.Popen[str]:
    """A server in a process of its own: that of the command line, or of other `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )


@contextmanager
def served(*arguments: object, **how: str) -> Iterator[Served]:
    """The server on a free port, once it says that it is there; ended in any case. `how` is as for `start`."""
    found = Served(start(*arguments, "--port", 0, **how))
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
        assert ready.wait(PATIENCE), "".join(found.lines)
        assert found.url, "".join(found.lines)
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait(PATIENCE)
        reader.join(10)
