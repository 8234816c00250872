"""What :class:`tasks.fanout.FanOut` asks of whoever starts its workers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spiritlm_core.errors import is_machine_error
from spiritlm_core.lake.stage import Progress

QUIET = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
"""Set in every worker before a model library is imported: no busy waiting."""


@dataclass(frozen=True)
class Wish:
    """What a worker is to have."""

    stage: str = ""  # for messages
    cpus: float = 1.0
    gpus: float = 0.0
    threads: int = 1
    hide_gpus: bool = False  # torch takes a GPU that it sees


@dataclass(frozen=True)
class Failure:
    """Why a call gave no result, in one sentence; `trace` is the worker's own traceback."""

    text: str
    lost_worker: bool
    cause: BaseException | None = None
    trace: str = ""

    @classmethod
    def of_error(cls, error: BaseException, trace: str = "") -> Failure:
        """An exception of the work; after one of the machine (memory, disk, CUDA) the worker is not used again."""
        text = " ".join(str(error).split())[:600]
        return cls(f"{type(error).__name__}: {text}".rstrip(": "), is_machine_error(error), error, trace)

    @classmethod
    def of_death(cls, why: str) -> Failure:
        """The worker process is gone."""
        return cls(f"the worker process died ({why})", lost_worker=True)


@dataclass(frozen=True)
class Reply:
    """The result of a call, or why there is none."""

    value: Any = None
    failure: Failure | None = None


class Member(Protocol):
    """One worker process. It does one thing at a time; starting is the first, and is answered, too."""

    def call(self, method: str, arguments: Sequence[Any], progress: Progress | None = None) -> None:
        """Begin a method of :class:`tasks.worker.Worker`; `progress`, if given, becomes its last argument."""

    def kill(self) -> None:
        """End it at once."""


class Executor(Protocol):
    """Starts workers and hears from them."""

    reserves: bool
    """Whether an idle worker holds what another wish may need."""

    def kind(self, wish: Wish) -> Hashable:
        """Workers whose wishes are of one kind can stand in for one another."""

    def room(self, wish: Wish) -> int:
        """How many such workers there may be now, at least one. Raises NoRoomError if there can never be one."""

    def hire(self, wish: Wish) -> Member:
        """Start a worker; returns at once."""

    def wait(self, members: Sequence[Any], seconds: float) -> list[tuple[Any, Reply]]:
        """The replies that have come, after at most `seconds` if none has; passes progress on meanwhile."""
