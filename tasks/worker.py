"""What runs inside a worker process: one stage is kept set up, shards and artifacts are computed one at a time."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spiritlm_core.cores import all_cores
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.run import run_artifact, run_shard
from spiritlm_core.lake.snapshot import ShardEntry
from spiritlm_core.lake.stage import Progress, TableStage
from tasks.calls import QUIET, Failure, Reply


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

    def run_shard(self, call: StageCall, job: ShardJob) -> tuple[ShardEntry, bool]:
        """Compute one shard; see :func:`spiritlm_core.lake.run.run_shard`."""
        return run_shard(self.lake, call, self._stage(call), job)

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
