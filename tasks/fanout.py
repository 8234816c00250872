"""Where the work of a run is done, and by how many workers.

The rule of ``compute.executor: auto``: Ray where a cluster is configured, else child processes of this machine, one per
core at most, which are up before a private Ray would be. Training in several processes is Ray Train's, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spiritlm_core.cores import core_count
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.snapshot import ShardEntry
from spiritlm_core.lake.stage import Progress, Resources
from spiritlm_core.recipe import ComputeConfig
from tasks.executors.child import ChildExecutor, InlineExecutor
from tasks.executors.cluster import Runtime
from tasks.executors.ray import RayExecutor
from tasks.pool import Pool, Rules, Task
from tasks.train import run_workers, sigterm_asks
from tasks.worker import Executor, Wish

OnDone = Callable[[ShardEntry, bool], None]


class FanOut:
    """The workers of a run; they start when the first job needs them."""

    def __init__(self, uri: str, compute: ComputeConfig, say: Callable[[str], None] = lambda _: None) -> None:
        """`uri` is the lake that the workers read and write; `say` shows a line to the user."""
        self.compute = compute
        self.runtime = Runtime(compute.ray_address)
        self.pool = Pool(self._executor(uri), say)

    def _executor(self, uri: str) -> Executor:
        wanted, workers = self.compute.executor, self.compute.workers
        if wanted == "inline":
            return InlineExecutor(uri)
        if wanted == "ray" or not self.runtime.is_private:
            return RayExecutor(uri, workers, self.runtime)
        return ChildExecutor(uri, workers)

    def run_shards(self, call: StageCall, jobs: Sequence[ShardJob], resources: Resources, on_done: OnDone) -> None:
        """Compute `jobs`; `on_done` is called in this process for each. Raises ShardFailedError or SpiritLMError."""
        wish = Wish(call.name, resources.num_cpus, resources.num_gpus, max(1, int(resources.num_cpus)))
        tasks = [Task("run_shard", (call, job), _about(job)) for job in jobs]
        rules = Rules(self._attempts(self.compute.attempts), self.compute.shard_timeout_seconds)
        self.pool.work(wish, tasks, rules, lambda result: on_done(*result))

    def run_artifact(self, plan: ArtifactPlan, resources: Resources, progress: Progress) -> tuple[Artifact, bool]:
        """Build one artifact in a worker that has all cores of a machine; returns it and whether it was built now.

        Raises ShardFailedError or SpiritLMError.
        """
        wish = Wish(plan.name, resources.num_cpus, resources.num_gpus, core_count())
        rules = Rules(self._attempts(self.compute.attempts), only_lost=True)
        built: tuple[Artifact, bool] = self._one(wish, Task("run_artifact", (plan,), "the build"), rules, progress)
        return built

    def run_job(self, stage: str, job: FitJob, progress: Progress) -> dict[str, Any]:
        """Run the training of a stage; returns its summary.

        Raises SpiritLMError: the job says what is wrong, or its workers kept dying.
        """
        compute, executor = job.compute, self.pool.executor
        if isinstance(executor, RayExecutor) or (compute.workers > 1 and not isinstance(executor, InlineExecutor)):
            self.runtime.start()
            self.pool.dismiss()  # Ray Train brings its own
            return run_workers(job, progress)
        wish = Wish(stage, threads=compute.cpus_per_worker or core_count(), hide_gpus=compute.use_gpu is False)
        with sigterm_asks(job.stop_file):
            rules = Rules(self._attempts(compute.retries + 1), alone=True)
            summary: dict[str, Any] = self._one(wish, Task("run_job", (job,), "the training"), rules, progress)
        return summary

    def _one(self, wish: Wish, task: Task, rules: Rules, progress: Progress) -> Any:
        results: list[Any] = []
        self.pool.work(wish, [task], rules, results.append, progress)
        return results[0]

    def _attempts(self, attempts: int) -> int:
        return 1 if self.compute.executor == "inline" else attempts

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        self.pool.dismiss()
        self.runtime.close()


def _about(job: ShardJob) -> str:
    return f"shard {job.key[:12]}" + (f" (holds {job.about})" if job.about else "")
