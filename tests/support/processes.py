"""Programs that run for the time of a test: started, waited for until they answer, ended, whatever happens."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

START_SECONDS = 300.0
END_SECONDS = 60.0
ATTEMPTS = 3
"""A free port may be taken by somebody else before a server binds it; the server is then started on others."""

T = TypeVar("T")


class ServerError(RuntimeError):
    """A program cannot be started; the message says why and shows the end of its log."""


class _DiedError(ServerError):
    """The program ended before it was ready."""


@dataclass(frozen=True)
class Program:
    """How to start a program, to see that it is ready, and to end it."""

    command: list[str]
    log: Path
    ready: Callable[[], bool]
    stop: signal.Signals = signal.SIGTERM
    user: str | None = None
    cwd: Path | None = None
    env: Mapping[str, str] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and wait until it is ready. Raises ServerError, with nothing left running."""
        command = [*_tied(self.stop), *self.command]
        with self.log.open("ab") as out:
            running = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.cwd, env=self.env, **as_(self.user)
            )
        try:
            self._wait(running)
        except BaseException:
            self.end(running)
            raise
        return running

    def _wait(self, running: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if running.poll() is not None:
                raise _DiedError(f"{self.command[:3]} ended with status {running.returncode}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.command[:3]} not ready within {START_SECONDS:.0f} s:\n{tail(self.log)}")
            time.sleep(0.2)

    def end(self, running: subprocess.Popen[bytes]) -> None:
        """End it with its own signal, by force if it takes too long."""
        if running.poll() is None:
            running.send_signal(self.stop)
        try:
            running.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(END_SECONDS)


@contextmanager
def running(prepare: Callable[[], tuple[Program, T]]) -> Iterator[T]:
    """Run a program while the block runs. `prepare` chooses its ports; the block gets what it gives beside it."""
    for attempt in range(ATTEMPTS):
        program, handle = prepare()
        try:
            started = program.start()
        except _DiedError:
            if attempt == ATTEMPTS - 1:
                raise
            continue
        try:
            yield handle
        finally:
            program.end(started)
        return


def _tied(stop: signal.Signals) -> list[str]:
    """A prefix that lets a program get its signal when we end, even by force (Linux; elsewhere nothing)."""
    return ["setpriv", "--pdeathsig", stop.name.removeprefix("SIG")] if shutil.which("setpriv") else []


def as_(user: str | None) -> dict[str, Any]:
    """Arguments of Popen that run a command as `user`; nothing where only root could do that."""
    if user is None or os.geteuid() != 0:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def tail(log: Path, characters: int = 3000) -> str:
    """The end of a log file."""
    return log.read_text(errors="replace")[-characters:] if log.exists() else "(no log)"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
