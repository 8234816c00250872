"""Workers as Ray actors, on every machine of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from spiritlm_core.lake.stage import Progress
from tasks.executors.cluster import Runtime, nodes, room_for
from tasks.worker import Failure, Reply, Wish, Worker


class RayMember:
    """The driver's side of one actor."""

    def __init__(self, actor: Any, relay: Callable[[], Any]) -> None:
        """`actor` may still wait for its resources; that it is up is its first reply."""
        self.actor = actor
        self.ref = actor.answer.remote("is_up", (), None)
        self.progress: Progress | None = None
        self.number = 0
        self._relay = relay

    def call(self, method: str, arguments: Sequence[Any], progress: Progress | None = None) -> None:
        """Begin; progress comes through a relay, because the actor does one thing at a time."""
        self.progress, self.number = progress, next(_NUMBERS)
        sender = _Sender(self._relay(), self.number) if progress is not None else None
        self.ref = self.actor.answer.remote(method, tuple(arguments), sender)

    def take(self) -> Reply:
        """The result of the call, which is there."""
        import ray

        try:
            reply: Reply = ray.get(self.ref)
        except ray.exceptions.RayError as error:
            return Reply(failure=_failure_of(error))
        return reply

    def kill(self) -> None:
        """End it, or withdraw it where it still waits for its resources."""
        import ray

        ray.kill(self.actor)


_NUMBERS = count()  # each call has one, so that progress of an earlier one is not taken for that of the next


class RayExecutor:
    """As many actors as the cluster can hold, which may change while they work."""

    reserves = True

    def __init__(self, uri: str, workers: int | None, runtime: Runtime) -> None:
        """`uri` is the lake; `workers` the most workers at a time."""
        self.uri = uri
        self.workers = workers
        self.runtime = runtime
        self._relay: Any = None
        self._asked: Any = None

    def kind(self, wish: Wish) -> Hashable:
        """What is reserved, and the threads."""
        return (wish.cpus, wish.gpus, wish.threads, *sorted(wish.custom.items()))

    def room(self, wish: Wish) -> int:
        """See :func:`tasks.executors.cluster.room_for`; a private runtime holds one worker of any wish for CPUs."""
        self.runtime.start()
        room = room_for(self._possible(wish))
        return min(room, self.workers or room)

    def hire(self, wish: Wish) -> RayMember:
        """Ask for an actor."""
        wish = self._possible(wish)
        reserved: dict[str, Any] = {"num_cpus": wish.cpus, "num_gpus": wish.gpus, "resources": dict(wish.custom)}
        actor = _actor(Worker, **reserved).remote(self.uri, wish.threads)
        return RayMember(actor, self._relay_here)

    def _relay_here(self) -> Any:
        """The one relay of this run, on this machine."""
        if self._relay is None:
            self._relay = _actor(_Relay, num_cpus=0, node=_this_node()).remote()
        return self._relay

    def _possible(self, wish: Wish) -> Wish:
        if not self.runtime.is_private:
            return wish
        return replace(wish, cpus=min(wish.cpus, nodes()[0][0].get("CPU", 1)), custom={})

    def wait(self, members: Sequence[RayMember], seconds: float) -> list[tuple[RayMember, Reply]]:
        """See :class:`tasks.worker.Executor`."""
        import ray

        by_ref = {member.ref: member for member in members}
        ready, _ = ray.wait(list(by_ref), num_returns=1, timeout=seconds)
        self._pass_on(members)
        return [(by_ref[ref], by_ref[ref].take()) for ref in ready]

    def _pass_on(self, members: Sequence[RayMember]) -> None:
        """Hand on the latest progress. Never waits: a relay that does not answer costs the view, not the work."""
        import ray

        if self._relay is None:
            return
        if self._asked is None:
            self._asked = self._relay.latest.remote()
        elif ray.wait([self._asked], timeout=0)[0]:
            asked, self._asked = self._asked, None
            try:
                latest = ray.get(asked)
            except ray.exceptions.RayError:
                self._relay = None
                return
            for member in members:
                if member.progress is not None and member.number in latest:
                    member.progress(*latest[member.number])


def _actor(cls: type, *, node: str | None = None, **options: Any) -> Any:
    """An actor class. Retries are ours: Ray's own would run a poison shard again without counting it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    more = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
    return ray.remote(cls).options(max_restarts=0, max_task_retries=0, **options, **more)


def _this_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _failure_of(error: Any) -> Failure:
    """In one sentence; Ray's own take up to thirty lines."""
    import ray.exceptions as kinds

    if isinstance(error, kinds.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
        return Failure.of_error(cause, str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, kinds.OutOfMemoryError):
        return Failure.of_death("Ray ended it because its machine was running out of memory")
    gone = "node" in lines[0] or "its node has died" in str(error)  # a worker that dies alone is never "unavailable"
    if isinstance(error, kinds.ActorUnavailableError | kinds.NodeDiedError) or gone:
        return Failure.of_death("its node is gone or cannot be reached", lost_node=True)
    if "creation task" in lines[0]:
        return Failure.of_death(lines[-1][:300])
    return Failure.of_death("killed, out of memory, or crashed")


class _Relay:
    """Holds the latest progress of every call, for the driver to ask."""

    def __init__(self) -> None:
        self.values: dict[int, tuple[float, str]] = {}

    def put(self, number: int, fraction: float, message: str) -> None:
        self.values[number] = (fraction, message)

    def latest(self) -> dict[int, tuple[float, str]]:
        """What came since the last time."""
        values, self.values = self.values, {}
        return values


@dataclass(frozen=True)
class _Sender:
    """The progress callback inside the worker."""

    relay: Any
    number: int

    def __call__(self, fraction: float, message: str) -> None:
        self.relay.put.remote(self.number, fraction, message)
