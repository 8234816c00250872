"""The fan-out without Ray: everything in this process, one after the other. For debugging and small tests."""

from __future__ import annotations

from collections.abc import Sequence

from spiritlm_core.errors import ShardFailedError, SpiritLMError
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.stage import Progress, Resources
from tasks.fanout import OnDone
from tasks.worker import Worker


class InlineFanOut:
    """Same interface as :class:`tasks.fanout.FanOut`; an error stops at its first attempt, with its traceback."""

    def __init__(self, uri: str, threads: int) -> None:
        """`uri` is the lake."""
        self.worker = Worker(uri, threads)

    def run_shards(self, call: StageCall, jobs: Sequence[ShardJob], resources: Resources, on_done: OnDone) -> None:
        """Compute `jobs` in order."""
        del resources
        for job in jobs:
            try:
                on_done(*self.worker.run_shard(call, job))
            except SpiritLMError:
                raise
            except Exception as error:
                raise ShardFailedError(f"stage {call.name}: shard {job.key[:12]} failed: {error}") from error

    def run_artifact(self, plan: ArtifactPlan, resources: Resources, progress: Progress) -> tuple[Artifact, bool]:
        """Build one artifact."""
        del resources
        return self.worker.run_artifact(plan, progress)

    def release(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing to stop."""
