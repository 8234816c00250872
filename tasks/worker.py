"""What is asked of a worker and what it replies; and what runs inside it: one stage is kept set up."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from spiritlm_core.cores import all_cores
from spiritlm_core.errors import is_machine_error
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.run import run_artifact, run_shard
from spiritlm_core.lake.snapshot import ShardEntry
from spiritlm_core.lake.stage import Progress, TableStage

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
    custom: Mapping[str, float] = field(default_factory=dict)  # resources that a Ray cluster has its own names for

    @property
    def reserved(self) -> dict[str, float]:
        """What Ray is to reserve, by its own names."""
        return {kind: n for kind, n in {"CPU": self.cpus, "GPU": self.gpus, **self.custom}.items() if n}


@dataclass(frozen=True)
class Failure:
    """Why a call gave no result, in one sentence; `trace` is the worker's own traceback."""

    text: str
    lost_worker: bool
    cause: BaseException | None = None
    trace: str = ""
    lost_node: bool = False

    @classmethod
    def of_error(cls, error: BaseException, trace: str = "") -> Failure:
        """An exception of the work; after one of the machine (memory, disk, CUDA) the worker is not used again."""
        text = " ".join(str(error).split())[:600]
        return cls(f"{type(error).__name__}: {text}".rstrip(": "), is_machine_error(error), error, trace)

    @classmethod
    def of_death(cls, why: str, *, lost_node: bool = False) -> Failure:
        """The worker process is gone, and its machine, too, if `lost_node`."""
        return cls(f"the worker process died ({why})", lost_worker=True, lost_node=lost_node)


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

    reserves: bool  # whether an idle worker holds what another wish may need

    def kind(self, wish: Wish) -> Hashable:
        """Workers whose wishes are of one kind can stand in for one another."""

    def room(self, wish: Wish) -> int:
        """How many such workers there may be now, at least one. Raises NoRoomError if there can never be one."""

    def hire(self, wish: Wish) -> Member:
        """Start a worker; returns at once."""

    def wait(self, members: Sequence[Any], seconds: float) -> list[tuple[Any, Reply]]:
        """The replies that have come, after at most `seconds` if none has; passes progress on meanwhile."""


class Worker:
    """Computes what it is told; loads the models of a stage once, when the stage first comes up."""

    def __init__(self, uri: str, threads: int) -> None:
        """`uri` is the lake, `threads` the number of compute threads of this process."""
        os.environ.update({**QUIET, **os.environ})
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self.threads = threads
        self.lake = Lake(uri)
        self.ready: tuple[str, TableStage] | None = None

    def answer(self, method: str, arguments: Sequence[Any], progress: Progress | None) -> Reply:
        """Call a method of this class; an error becomes a reply that can be sent. `progress` is its last argument."""
        extra = () if progress is None else (progress,)
        try:
            return Reply(getattr(self, method)(*arguments, *extra))
        except Exception as error:  # noqa: BLE001 - the run decides
            return Reply(failure=_portable(Failure.of_error(error, traceback.format_exc())))

    def is_up(self) -> None:
        """Answered once the process is up."""

    def run_shard(self, call: StageCall, job: ShardJob, progress: Progress) -> tuple[ShardEntry, bool]:
        """Compute one shard; see :func:`spiritlm_core.lake.run.run_shard`."""
        return run_shard(self.lake, call, self._stage(call), job, progress)

    def run_artifact(self, plan: ArtifactPlan, progress: Progress) -> tuple[Artifact, bool]:
        """Build one artifact; see :func:`spiritlm_core.lake.run.run_artifact`."""
        self.ready = None  # a fit may want the memory
        return run_artifact(self.lake, plan, progress)

    def run_job(self, job: FitJob, progress: Progress) -> dict[str, Any]:
        """Do a training job that one process does alone; returns its summary."""
        self.ready = None
        with all_cores(job.compute.cpus_per_worker):
            return job.run(progress)

    def _stage(self, call: StageCall) -> TableStage:
        if self.ready is None or self.ready[0] != call.identity:
            self.ready = None
            stage: TableStage = call.create(self.lake)
            if "torch" in sys.modules:  # it takes every core unless told otherwise; N workers would fight over N cores
                sys.modules["torch"].set_num_threads(self.threads)
            stage.setup()
            self.ready = (call.identity, stage)
        return self.ready[1]


def _portable(failure: Failure) -> Failure:
    """Without the exception where that cannot be sent; its text is kept."""
    try:
        pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - pickle passes on whatever the exception's class raises
        return replace(failure, cause=None)
    return failure
