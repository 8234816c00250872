"""The Ray fan-out: a bounded window of shards over a pool of worker processes. The only module that starts Ray.

One shard is in flight per worker. A worker that dies or hangs is replaced and its shard tried again; a shard
that keeps failing stops the run with the error of its last attempt. What is finished is in the lake by then.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spiritlm_core.cores import core_count
from spiritlm_core.errors import ShardFailedError, SpiritLMError
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.snapshot import ShardEntry
from spiritlm_core.lake.stage import Progress, Resources
from tasks.worker import QUIET, Worker

OnDone = Callable[[ShardEntry, bool], None]
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class FanOutSettings:
    """How the fan-out behaves; nothing here changes a result."""

    workers: int | None = None  # default: as many as the cluster's CPUs allow
    timeout_seconds: float = 3600.0  # for one shard, model loading included
    attempts: int = 3
    address: str | None = None  # of a Ray cluster; default: RAY_ADDRESS, else a private local runtime


@dataclass
class _Attempt:
    job: ShardJob
    failures: int = 0
    last_error: str = ""


@dataclass
class _Running:
    worker: Any
    attempt: _Attempt
    since: float = field(default_factory=time.monotonic)


def start_ray(settings: FanOutSettings) -> bool:
    """Start a private local Ray, or join the cluster that is configured; False if Ray runs already.

    Raises SpiritLMError if the cluster cannot be joined.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})  # workers inherit them
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = settings.address or os.environ.get("RAY_ADDRESS")
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(_private_access())
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    local: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", **local, **quiet)
    except ConnectionError as error:
        raise SpiritLMError(
            f"cannot join the Ray cluster at {address} ({error}); is it up, is this machine one of its nodes, "
            "and are RAY_AUTH_MODE and RAY_AUTH_TOKEN those of the cluster?"
        ) from error
    return True


def _private_access() -> dict[str, str]:
    """A token of our own: a private runtime, too, listens on every interface, and would run anybody's code.

    Ray reads the mode when it is imported; a program that did that before us has chosen for itself.
    """
    if "ray" in sys.modules:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class FanOut:
    """A pool of workers that lives as long as a run; Ray starts when the first job needs it."""

    def __init__(self, uri: str, settings: FanOutSettings) -> None:
        """`uri` is the lake that the workers read and write."""
        self.uri = uri
        self.settings = settings
        self._idle: dict[tuple[float, float], list[Any]] = {}
        self._builder: Any = None
        self._started_here = False

    def start(self) -> None:
        """Start Ray if it does not run yet."""
        if start_ray(self.settings):
            self._started_here = True

    def close(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        if self._started_here:
            import ray

            ray.shutdown()
            self._started_here = False
        self._idle.clear()
        self._builder = None

    # --- shards -------------------------------------------------------------------------------------------

    def run_shards(self, call: StageCall, jobs: Sequence[ShardJob], resources: Resources, on_done: OnDone) -> None:
        """Compute `jobs`; `on_done` is called in this process for each. Raises ShardFailedError or SpiritLMError."""
        self.start()
        waiting = deque(_Attempt(job) for job in jobs)
        running: dict[Any, _Running] = {}
        size = min(len(jobs), self._pool_size(resources))
        with self._workers(size, resources) as idle:
            while waiting or running:
                while waiting and idle:
                    worker, attempt = idle.pop(), waiting.popleft()
                    running[worker.run_shard.remote(call, attempt.job)] = _Running(worker, attempt)
                self._collect(call, resources, running, idle, waiting, on_done)

    def _collect(
        self,
        call: StageCall,
        resources: Resources,
        running: dict[Any, _Running],
        idle: list[Any],
        waiting: deque[_Attempt],
        on_done: OnDone,
    ) -> None:
        """Take in what has finished, failed or hung; failed shards go back to the front of the queue."""
        import ray

        ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
        for ref in ready or self._overdue(running):
            job = running.pop(ref)
            error = _outcome(ref, self.settings.timeout_seconds, hung=not ready, on_done=on_done)
            if error is None or not error.lost_worker:
                idle.append(job.worker)
            else:
                ray.kill(job.worker)
                idle.append(self._spawn(resources))
            if error is not None:
                waiting.appendleft(self._again(call, job.attempt, error))

    def _overdue(self, running: dict[Any, _Running]) -> list[Any]:
        limit = time.monotonic() - self.settings.timeout_seconds
        return [ref for ref, job in running.items() if job.since < limit]

    def _again(self, call: StageCall, attempt: _Attempt, error: _Failure) -> _Attempt:
        attempt.failures += 1
        attempt.last_error = error.text
        if attempt.failures < self.settings.attempts:
            return attempt
        where = f" (holds {attempt.job.about})" if attempt.job.about else ""
        raise ShardFailedError(
            f"stage {call.name}: shard {attempt.job.key[:12]}{where} failed {attempt.failures} times, the run stops; "
            f"finished shards are kept, run again to go on.\nLast error: {attempt.last_error}"
        )

    # --- artifacts ----------------------------------------------------------------------------------------

    def run_artifact(self, plan: ArtifactPlan, resources: Resources, progress: Progress) -> tuple[Artifact, bool]:
        """Build one artifact in a worker that has all cores of a machine."""
        import ray

        self.start()
        relay = _actor_class(_Relay).options(num_cpus=0).remote()
        builder = self._builder_for(resources)
        ref = builder.run_artifact.remote(plan, _Sender(relay))
        while not ray.wait([ref], timeout=POLL_SECONDS)[0]:
            if latest := ray.get(relay.latest.remote()):
                progress(*latest)
        ray.kill(relay)
        try:
            return ray.get(ref)  # type: ignore[no-any-return]
        except ray.exceptions.RayError as error:
            self._builder = None
            raise _failure_of(error).as_error(f"stage {plan.name}") from None

    def release(self) -> None:
        """Free every worker's resources, for a stage that brings its own (Ray Train)."""
        self._stop_pool()
        self._stop_builder()

    def _builder_for(self, resources: Resources) -> Any:
        """On a private runtime the idle pool stays up beside the builder: its imports are worth keeping."""
        threads = core_count()
        if self._builder is None or resources.num_gpus:
            self._stop_builder()
            if not self._private:
                self._stop_pool()
            cpus = 0 if self._private and not resources.num_gpus else resources.num_cpus
            self._builder = self._actor(Resources(cpus, resources.num_gpus), threads)
        return self._builder

    @property
    def _private(self) -> bool:
        return self._started_here and not (self.settings.address or os.environ.get("RAY_ADDRESS"))

    # --- workers ------------------------------------------------------------------------------------------

    def _pool_size(self, resources: Resources) -> int:
        import ray

        if self.settings.workers:
            return self.settings.workers
        have = ray.cluster_resources()  # type: ignore[no-untyped-call]
        by_cpu = have.get("CPU", 1) // resources.num_cpus if resources.num_cpus else float("inf")
        by_gpu = have.get("GPU", 0) // resources.num_gpus if resources.num_gpus else float("inf")
        return max(1, int(min(by_cpu, by_gpu)))

    @contextmanager
    def _workers(self, size: int, resources: Resources) -> Iterator[list[Any]]:
        """Idle workers of this size; those left over are kept for the next stage that wants the same."""
        kind = (resources.num_cpus, resources.num_gpus)
        if set(self._idle) - {kind}:
            self._stop_pool()
        idle = self._idle.pop(kind, [])[:size]
        idle += [self._spawn(resources) for _ in range(size - len(idle))]
        yield idle
        self._idle[kind] = idle

    def _spawn(self, resources: Resources) -> Any:
        return self._actor(resources, max(1, int(resources.num_cpus)))

    def _actor(self, resources: Resources, threads: int) -> Any:

        # Retries are ours: Ray's own would run a poison shard again without counting it.
        options: dict[str, float] = {"max_restarts": 0, "max_task_retries": 0}
        options |= {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
        return _actor_class(Worker).options(**options).remote(self.uri, threads)

    def _stop_pool(self) -> None:
        import ray

        for workers in self._idle.values():
            for worker in workers:
                ray.kill(worker)
        self._idle.clear()

    def _stop_builder(self) -> None:
        if self._builder is not None:
            import ray

            ray.kill(self._builder)
            self._builder = None


@dataclass(frozen=True)
class _Failure:
    text: str
    lost_worker: bool
    cause: BaseException | None = None

    def as_error(self, where: str) -> SpiritLMError:
        if isinstance(self.cause, SpiritLMError):
            return self.cause
        return ShardFailedError(f"{where}: {self.text}")


def _outcome(ref: Any, timeout: float, *, hung: bool, on_done: OnDone) -> _Failure | None:
    """Hand a result to `on_done`, or say why there is none. A SpiritLMError is the caller's to act on: raised."""
    import ray

    if hung:
        return _Failure(f"no result within {timeout:.0f} s; the worker was killed", lost_worker=True)
    try:
        entry, computed = ray.get(ref)
    except ray.exceptions.RayError as error:
        failure = _failure_of(error)
        if isinstance(failure.cause, SpiritLMError):
            raise failure.cause from None
        return failure
    on_done(entry, computed)
    return None


def _failure_of(error: Exception) -> _Failure:
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else None
        return _Failure(str(error).strip(), lost_worker=False, cause=cause)
    text = " ".join(str(error).split())[:300]
    return _Failure(f"the worker process died ({text})", lost_worker=True)


def _actor_class(cls: type) -> Any:
    import ray

    return ray.remote(cls)


class _Relay:
    """Holds the latest progress of a builder, for the driver to ask."""

    def __init__(self) -> None:
        self.value: tuple[float, str] | None = None

    def put(self, fraction: float, message: str) -> None:
        self.value = (fraction, message)

    def latest(self) -> tuple[float, str] | None:
        return self.value


@dataclass(frozen=True)
class _Sender:
    """The progress callback inside the builder."""

    relay: Any

    def __call__(self, fraction: float, message: str) -> None:
        self.relay.put.remote(fraction, message)
