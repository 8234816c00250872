"""Workers as child processes of this one, each with a memory of its own: a crash or a kill loses one worker, no more.

A child is a Python of its own at the other end of a socket, so nothing of the program that started it is imported
again. It ends when the socket closes: with its parent, however that ended.
"""

import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from spiritlm_core.cores import core_count
from spiritlm_core.lake.stage import Progress
from tasks.worker import QUIET, Failure, Reply, Wish, Worker

_PROGRESS, _REPLY = "progress", "reply"
_PROGRAM = "import sys; number, *sys.path = sys.argv[1:]; from tasks.executors.child import main; main(int(number))"


class ChildMember:
    """The parent's side of one child."""

    def __init__(self, uri: str, wish: Wish) -> None:
        """Start a worker on the lake `uri`."""
        self.connection, theirs = Pipe()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`; nameless, so nothing is ever left of it
        self.progress: Progress | None = None
        self.process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
            env=_environment(wish),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        self._send((uri, wish.threads))

    def call(self, method: str, arguments: Sequence[Any], progress: Progress | None = None) -> None:
        """Begin; the child relays its progress."""
        self.progress = progress
        self._send((method, tuple(arguments), progress is not None))

    def _send(self, message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:  # it has died: `take` finds the socket closed
            return

    def take(self) -> Reply | None:
        """One message: a reply, or None after one of progress."""
        try:
            kind, *rest = self.connection.recv() if self.connection.poll() else (None,)
        except (EOFError, OSError):
            kind, rest = None, []
        if kind is None:
            return Reply(failure=Failure.of_death(self._last_words()))
        if kind == _REPLY:
            return rest[0]
        if self.progress is not None:
            self.progress(*rest)
        return None

    @property
    def ended(self) -> bool:
        """Whether the process is gone; a process that it forked may hold the socket open."""
        return self.process.poll() is not None

    def _last_words(self) -> str:
        status = self.process.wait()
        ended = _signal_name(-status) if status < 0 else f"exit status {status}"
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 2000))
        lines = self.log.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"{ended}; it last said: {said[-1][:300]}" if said else ended

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.log.close()


def _signal_name(number: int) -> str:
    """The name of a signal, with what it usually means here."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}; the machine may be out of memory" if number == signal.SIGKILL else name


def _environment(wish: Wish) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(wish.threads)}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if wish.hide_gpus else {}
    return {**QUIET, **os.environ, **threads, **hidden}


class ChildExecutor:
    """As many children as there are cores for."""

    reserves = False

    def __init__(self, uri: str, workers: int | None) -> None:
        """`uri` is the lake; `workers` the number of children, whatever the cores."""
        self.uri = uri
        self.workers = workers

    def kind(self, wish: Wish) -> tuple[int, bool]:
        """What the environment of a child says."""
        return (wish.threads, wish.hide_gpus)

    def room(self, wish: Wish) -> int:
        """One child per core, or fewer if each wants several."""
        return self.workers or max(1, int(core_count() // max(wish.cpus, 1.0)))

    def hire(self, wish: Wish) -> ChildMember:
        """Start a child."""
        return ChildMember(self.uri, wish)

    def wait(self, members: Sequence[ChildMember], seconds: float) -> list[tuple[ChildMember, Reply]]:
        """See :class:`tasks.worker.Executor`."""
        ready = wait([member.connection for member in members], seconds)
        heard = [(member, member.take()) for member in members if member.connection in ready or member.ended]
        return [(member, reply) for member, reply in heard if reply is not None]


class _Relay:
    """The progress callback in the child. It never waits: what the parent does not take in is dropped."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __call__(self, fraction: float, message: str) -> None:
        if select.select([], [self.connection], [], 0)[1]:
            self.connection.send((_PROGRESS, fraction, message))


def _listen(connection: Connection, calls: queue.SimpleQueue[Any]) -> None:
    """Take in what the parent sends; end this process when the parent has ended, or when a call cannot be read.

    A call names classes that are imported as it is read, which fails where the program has changed on disk.
    """
    try:
        while True:
            calls.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - whatever it is, nobody would hear of it
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the last words
        os._exit(1)


def main(number: int) -> None:
    """One child: answer calls on the socket with this file descriptor until the parent closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    connection = Connection(number)
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls), daemon=True).start()
    worker = Worker(*calls.get())
    connection.send((_REPLY, Reply()))
    while True:
        method, arguments, relayed = calls.get()
        connection.send((_REPLY, worker.answer(method, arguments, _Relay(connection) if relayed else None)))


class InlineMember:
    """This process as a worker; a call ends before it returns."""

    def __init__(self, uri: str) -> None:
        """`uri` is the lake."""
        self.worker = Worker(uri, 1)
        self.replies = [Reply()]

    def call(self, method: str, arguments: Sequence[Any], progress: Progress | None = None) -> None:
        """Do it."""
        self.replies.append(self.worker.answer(method, arguments, progress))

    def kill(self) -> None:
        """Nothing to end."""


class InlineExecutor:
    """One worker, which is this process."""

    reserves = False

    def __init__(self, uri: str) -> None:
        """`uri` is the lake."""
        self.uri = uri

    def kind(self, wish: Wish) -> None:
        """One for all wishes."""

    def room(self, wish: Wish) -> int:
        """One."""
        return 1

    def hire(self, wish: Wish) -> InlineMember:
        """This process."""
        return InlineMember(self.uri)

    def wait(self, members: Sequence[InlineMember], seconds: float) -> list[tuple[InlineMember, Reply]]:
        """What has been done since the last time."""
        return [(member, member.replies.pop(0)) for member in members if member.replies]
