"""A Ray cluster of several nodes on this machine: real processes, each node with resources of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil

from tests.support.processes import ATTEMPTS, Program, ServerError, free_ports
from tests.support.watching import PATIENCE, command_line, descendants, kill

ROOT = Path(__file__).parents[2]
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray puts 15 behind whatever else a machine does
    "PYTHONPATH": str(ROOT),
}


def started(log: Path) -> bool:
    return log.exists() and b"runtime started" in log.read_bytes()


class Cluster:
    """Nodes by name, each a `ray start --block` with its children."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # the path of a socket must be short
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.nodes = {}
        self.add("head", "--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false", cpus=0)

    def add(self, name: str, *options: str, cpus: int) -> None:
        options = options or ("--address", self.address)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}", *options]
        ray += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"]
        ray += ["--temp-dir", self.folder] if name == "head" else []
        for attempt in range(ATTEMPTS):  # Ray gives its parts 15 and 30 s, which a busy machine exceeds
            log = Path(self.folder) / f"{name}-{attempt}-{time.monotonic_ns()}.log"
            program = Program(ray, log, partial(started, log), env={**os.environ, **RAY})
            try:
                self.nodes[name] = (program, program.start())
            except ServerError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def processes(self, name: str, words: str = "") -> list[psutil.Process]:
        """Those of a node whose title holds `words`; none of a node that is gone."""
        node = self.nodes.get(name)
        return descendants(node[1].pid, words) if node else []

    def host_of(self, pid: int) -> str:
        return next(name for name in self.nodes if pid in {process.pid for process in self.processes(name)})

    def kill(self, name: str) -> None:
        """SIGKILL to the node's raylet: its workers and helpers then end by themselves."""
        kill(
            [process for process in self.processes(name) if command_line(process).partition(" ")[0].endswith("raylet")]
        )
        self.nodes.pop(name)[1].wait(PATIENCE)

    def close(self) -> None:
        for program, running in reversed(self.nodes.values()):  # a node whose head is gone looks for it for a minute
            program.end(running)
        shutil.rmtree(self.folder, ignore_errors=True)
