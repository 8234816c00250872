"""Where the work of a run is done, by how many workers, and a bounded window of tasks over them.

The rule of ``compute.executor: auto``: Ray where a cluster is configured, else child processes of this machine, one per
core at most, which are up before a private Ray would be. Training in several processes is Ray Train's, everywhere.

One task is with a worker at a time, and only with one that is up. A worker that dies or hangs is replaced and its task
tried again; a task that keeps failing stops the work with the error of its last attempt.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from spiritlm_core.cores import core_count
from spiritlm_core.errors import ShardFailedError, SpiritLMError
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.snapshot import ShardEntry
from spiritlm_core.lake.stage import Progress, Resources
from spiritlm_core.recipe import ComputeConfig, StageCompute
from tasks.executors.child import ChildExecutor, InlineExecutor
from tasks.executors.cluster import Runtime
from tasks.executors.ray import RayExecutor
from tasks.train import run_workers, sigterm_asks
from tasks.worker import Executor, Failure, Member, Reply, Wish

POLL_SECONDS = 1.0
START_SECONDS = 600.0  # for a worker to come up
PATIENCE_SECONDS = 30.0  # without a single worker; then it is said


@dataclass
class Task:
    """One call of a worker's method, who hears of its progress, and how often it failed so far."""

    method: str
    arguments: tuple[Any, ...]
    about: str
    progress: Progress
    failures: int = 0
    lost_nodes: int = 0  # while it was with them


@dataclass(frozen=True)
class Rules:
    """How long a task may take and how often it is tried."""

    attempts: int
    seconds: float = inf
    lost_nodes: int = 0  # how many losses of a node are no failure of the task
    only_lost: bool = False  # try again only after the loss of a worker or an error of its machine
    alone: bool = False  # end the workers of other kinds first, which hold memory


class WorkerTraceback(Exception):  # noqa: N818 - what a worker said, as the cause of an error here
    """The traceback of an error in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class _Seat:
    """A worker and what it does: it starts (not `up`), is idle (no `task`), or works."""

    member: Member
    since: float = field(default_factory=time.monotonic)
    up: bool = False
    task: Task | None = None

    @property
    def is_heard(self) -> bool:
        """Whether it owes a reply."""
        return self.task is not None or not self.up


class Pool:
    """Workers that stay up between stages, so that their libraries are imported once."""

    def __init__(self, executor: Executor, say: Callable[[str], None]) -> None:
        """`say` shows a line to the user."""
        self.executor = executor
        self.say = say
        self._pools: dict[Hashable, list[_Seat]] = {}

    def work(self, wish: Wish, tasks: Iterable[Task], rules: Rules, on_done: Callable[[Any], None]) -> None:
        """Do `tasks`; `on_done` is called here with each result.

        Raises ShardFailedError: a task kept failing, or no worker comes up; SpiritLMError: a task raised one, or there
        can be no such worker.
        """
        batch = _Batch(self, wish, deque(tasks), rules, on_done)
        try:
            batch.run(self._seats(wish, alone=rules.alone))
        except BaseException:
            self.dismiss(self.executor.kind(wish))
            raise

    def dismiss(self, *kinds: Hashable) -> None:
        """End the workers of these kinds; none: of every kind."""
        for kind in kinds or tuple(self._pools):
            for seat in self._pools.pop(kind, ()):
                seat.member.kill()

    def _seats(self, wish: Wish, *, alone: bool) -> list[_Seat]:
        kind = self.executor.kind(wish)
        if alone or self.executor.reserves:
            for other in set(self._pools) - {kind}:
                self.dismiss(other)
        return self._pools.setdefault(kind, [])


@dataclass
class _Batch:
    """The tasks of one stage on their way through a pool."""

    pool: Pool
    wish: Wish
    waiting: deque[Task]
    rules: Rules
    on_done: Callable[[Any], None]
    failed_starts: int = 0
    dying: float = inf  # since when nodes die under workers that start, and none comes up
    patience: float = field(default_factory=lambda: time.monotonic() + PATIENCE_SECONDS)

    def run(self, seats: list[_Seat]) -> None:
        while self.waiting or any(seat.task for seat in seats):
            self._staff(seats)
            self._hand_out(seats)
            for seat, reply in self._hear([seat for seat in seats if seat.is_heard]):
                if seat.up:
                    self._take(seats, seat, reply)
                else:
                    self._welcome(seats, seat, reply.failure)

    def _staff(self, seats: list[_Seat]) -> None:
        """Follow the room that there is: withdraw workers that cannot come up, ask for those that can."""
        room = self.pool.executor.room(self.wish)
        surplus = max(0, len(seats) - room)
        for seat in [seat for seat in seats if not seat.up][:surplus]:
            _drop(seats, seat)
        wanted = min(room, len(self.waiting) + sum(seat.task is not None for seat in seats))
        seats.extend(_Seat(self.pool.executor.hire(self.wish)) for _ in range(wanted - len(seats)))

    def _hand_out(self, seats: list[_Seat]) -> None:
        for seat in seats:
            if seat.up and seat.task is None and self.waiting:
                seat.task, seat.since = self.waiting.popleft(), time.monotonic()
                seat.member.call(seat.task.method, seat.task.arguments, seat.task.progress)

    def _hear(self, seats: list[_Seat]) -> list[tuple[_Seat, Reply]]:
        """The replies that came; a worker that takes too long has replied, too."""
        by_member = {id(seat.member): seat for seat in seats}
        replies = self.pool.executor.wait([seat.member for seat in seats], POLL_SECONDS)
        self._grumble(seats)
        heard = [(by_member[id(member)], reply) for member, reply in replies]
        return heard or [
            (seat, self._overdue(seat)) for seat in seats if time.monotonic() > seat.since + self._limit(seat)
        ]

    def _limit(self, seat: _Seat) -> float:
        return self.rules.seconds if seat.up else START_SECONDS

    def _overdue(self, seat: _Seat) -> Reply:
        what = "no result" if seat.up else "not up"
        return Reply(
            failure=Failure(f"{what} within {self._limit(seat):.0f} s; the worker was killed", lost_worker=True)
        )

    def _grumble(self, seats: list[_Seat]) -> None:
        if time.monotonic() > self.patience and not any(seat.up for seat in seats):
            self.pool.say(f"  {self.wish.stage}: waiting for a worker with {self.wish.cpus:g} CPUs to come up")
            self.patience = inf

    def _welcome(self, seats: list[_Seat], seat: _Seat, failure: Failure | None) -> None:
        """A worker that is up, or one that failed to come up."""
        if failure is None:
            seat.up, self.failed_starts, self.dying = True, 0, inf
            return
        _drop(seats, seat)
        if failure.lost_node:  # of one node, it may be that of many that start: they are not counted
            self.dying = min(self.dying, time.monotonic())
        else:
            self.failed_starts += 1
        for_long = time.monotonic() - self.dying > START_SECONDS and not any(seat.up for seat in seats)
        if self.failed_starts >= self.rules.attempts or for_long:
            since = f" within {START_SECONDS:.0f} s, because nodes die under them" if for_long else ""
            raise ShardFailedError(f"stage {self.wish.stage}: no worker comes up{since}: {failure.text}")

    def _take(self, seats: list[_Seat], seat: _Seat, reply: Reply) -> None:
        task, seat.task = seat.task, None
        assert task is not None  # noqa: S101 - only seats that owe a reply are heard
        if reply.failure is None:
            self.on_done(reply.value)
            return
        if reply.failure.lost_worker:
            _drop(seats, seat)
        self._try_again(task, reply.failure)

    def _try_again(self, task: Task, failure: Failure) -> None:
        if isinstance(failure.cause, SpiritLMError):
            raise failure.cause from _cause(failure)
        if failure.lost_node and task.lost_nodes < self.rules.lost_nodes:
            task.lost_nodes += 1
        else:
            task.failures += 1
        if task.failures < self.rules.attempts and (failure.lost_worker or not self.rules.only_lost):
            self.pool.say(f"  {self.wish.stage}: {task.about}: {failure.text}; it is tried again")
            self.waiting.appendleft(task)
            return
        times = "once" if task.failures == 1 else f"{task.failures} times"
        raise ShardFailedError(
            f"stage {self.wish.stage}: {task.about} failed {times}, the run stops; what is finished is kept, "
            f"run again to go on. Last error: {failure.text}"
        ) from _cause(failure)


def _cause(failure: Failure) -> WorkerTraceback | None:
    return WorkerTraceback(failure.trace) if failure.trace else None


def _drop(seats: list[_Seat], seat: _Seat) -> None:
    seats.remove(seat)
    seat.member.kill()


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

    def run_shards(
        self,
        call: StageCall,
        jobs: Sequence[ShardJob],
        resources: Resources,
        on_done: OnDone,
        on_progress: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        """Compute `jobs`; `on_done` is called in this process for each, `on_progress` with its key and fraction before.

        Raises ShardFailedError or SpiritLMError.
        """
        wish = self._wish(call.name, resources, max(1, int(resources.num_cpus)))
        tasks = [Task("run_shard", (call, job), _about(job), _of_shard(job.key, on_progress)) for job in jobs]
        compute = self.compute
        rules = Rules(self._attempts(compute.attempts), compute.shard_timeout_seconds, compute.lost_nodes)
        self.pool.work(wish, tasks, rules, lambda result: on_done(*result))

    def run_artifact(self, plan: ArtifactPlan, resources: Resources, progress: Progress) -> tuple[Artifact, bool]:
        """Build one artifact in a worker, with all cores of a machine or those that `compute.stages` gives it.

        Returns it and whether it was built now.

        Raises ShardFailedError or SpiritLMError.
        """
        wish = self._wish(plan.name, resources, core_count())
        rules = Rules(self._attempts(self.compute.attempts), lost_nodes=self.compute.lost_nodes, only_lost=True)
        return self._one(wish, Task("run_artifact", (plan,), "the build", progress), rules)

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
            summary: dict[str, Any] = self._one(wish, Task("run_job", (job,), "the training", progress), rules)
        return summary

    def _one(self, wish: Wish, task: Task, rules: Rules) -> Any:
        results: list[Any] = []
        self.pool.work(wish, [task], rules, results.append)
        return results[0]

    def _wish(self, stage: str, asked: Resources, threads: int) -> Wish:
        """What a stage asks for, or what `compute.stages` gives it instead."""
        given = self.compute.stages.get(stage, StageCompute())
        gpus = asked.num_gpus if given.gpus is None else given.gpus
        threads = max(1, int(given.cpus)) if given.cpus else threads
        return Wish(stage, given.cpus or asked.num_cpus, gpus, threads, custom=given.resources)

    def _attempts(self, attempts: int) -> int:
        return 1 if self.compute.executor == "inline" else attempts

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        self.pool.dismiss()
        self.runtime.close()


def _of_shard(key: str, on_progress: Callable[[str, float], None]) -> Progress:
    return lambda fraction, message: on_progress(key, fraction)  # noqa: ARG005 - a shard says no more


def _about(job: ShardJob) -> str:
    return f"shard {job.key[:12]}" + (f" (holds {job.about})" if job.about else "")
