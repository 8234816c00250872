"""What a run would do, stage by stage: reused or new, why, how long that takes, by the last run in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan, Plan, ShardJob, TablePlan
from spiritlm_core.lake.snapshot import Ref, ShardEntry, Snapshot
from spiritlm_core.plan.changes import NOTHING, Since
from spiritlm_core.plan.graph import RunPlan
from spiritlm_core.plan.reasons import Reason, last_made, reasons


@dataclass(frozen=True)
class Estimate:
    """Of one stage; null is unknown."""

    shards: int  # how many it has, 1 for an artifact
    new: int  # how many of them have to be computed
    rows: int | None = None  # of the whole table
    hours: float | None = None  # of audio, of the whole table
    seconds: float | None = None  # of computing what is new, in one process
    size: int | None = None  # bytes of what is new


@dataclass(frozen=True)
class Amount:
    """What a shard holds: rows, and seconds of audio that they are about."""

    rows: float
    audio: float


@dataclass(frozen=True)
class Pace:
    """What one item of a first table, or one row of any other, came to."""

    rows: float
    audio: float
    seconds: float
    size: float


@dataclass
class Estimator:
    """Takes the stages of a run in their order, because a table is as long as the one that it is made from."""

    lake: Lake
    recipe: str
    _amounts: dict[str, Amount] = field(default_factory=dict)  # by key of a shard, where it is known

    def artifact(self, plan: ArtifactPlan) -> Estimate:
        """As long, and as large, as the last one of this recipe was, or of another."""
        if plan.is_complete(self.lake):
            return Estimate(1, 0, seconds=0.0, size=0)
        for ref in self._refs(plan.name):
            if last := self.lake.read_artifact(plan.name, ref.target):
                return Estimate(1, 1, seconds=last.seconds, size=sum(last.sizes.values()))
        return Estimate(1, 1)

    def table(self, plan: TablePlan) -> Estimate:
        """Shards that are there as they are, and the others at the pace of the last run."""
        sizes = self.lake.shard_sizes(plan.name)
        refs = self._refs(plan.name)
        last = self.lake.find_snapshot(plan.name, refs[0].target) if refs else None
        pace = _pace(last, sizes) if last else None
        known = {shard.key: shard for shard in last.shards} if last else {}
        for job in plan.jobs:
            if amount := self._amount(job, known.get(job.key), pace):
                self._amounts[job.key] = amount
        new = [job for job in plan.jobs if job.key not in sizes]
        seconds, size = self._work(new, pace)
        rows, hours = self._total(plan)
        return Estimate(len(plan.jobs), len(new), rows, hours, seconds, size)

    def _amount(self, job: ShardJob, known: ShardEntry | None, pace: Pace | None) -> Amount | None:
        if job.parents:
            return self._amounts.get(job.parents[0][1])
        if known is not None:
            return Amount(known.stats.rows_in + known.stats.upstream, known.stats.audio_seconds)
        return Amount(pace.rows * len(job.members), pace.audio * len(job.members)) if pace else None

    def _work(self, new: list[ShardJob], pace: Pace | None) -> tuple[float | None, int | None]:
        """Seconds and bytes of shards that are to be computed."""
        if not new:
            return 0.0, 0
        if pace is None or any(job.parents and job.key not in self._amounts for job in new):
            return None, None
        units = sum(self._amounts[job.key].rows if job.parents else len(job.members) for job in new)
        return round(pace.seconds * units, 1), round(pace.size * units)

    def _total(self, plan: TablePlan) -> tuple[int | None, float | None]:
        if any(job.key not in self._amounts for job in plan.jobs):
            return None, None
        amounts = [self._amounts[job.key] for job in plan.jobs]
        return round(sum(each.rows for each in amounts)), round(sum(each.audio for each in amounts) / 3600, 4)

    def _refs(self, name: str) -> list[Ref]:
        """What recipes use under `name`, this one first."""
        refs = [ref for ref in self._all_refs if ref.name == name]
        return sorted(refs, key=lambda ref: (ref.recipe != self.recipe, -ref.updated))

    @cached_property
    def _all_refs(self) -> list[Ref]:
        return list(self.lake.refs())


def _pace(last: Snapshot, sizes: dict[str, int]) -> Pace | None:
    """Per item of a first table, per row of any other; null where there was nothing to do."""
    there = [shard for shard in last.shards if shard.key in sizes]
    units = sum(len(shard.members) or shard.stats.rows_in + shard.stats.upstream for shard in there)
    if not units:
        return None
    return Pace(
        rows=sum(shard.stats.rows_in + shard.stats.upstream for shard in there) / units,
        audio=sum(shard.stats.audio_seconds for shard in there) / units,
        seconds=sum(shard.stats.seconds for shard in there) / units,
        size=sum(sizes[shard.key] for shard in there) / units,
    )


@dataclass(frozen=True)
class StagePreview:
    """One stage of a run that has not begun."""

    name: str
    kind: str
    fingerprint: str
    estimate: Estimate
    why: tuple[Reason, ...] = ()

    @property
    def status(self) -> str:
        """Whether it is ``reused``, ``partly new``, or ``new``."""
        if not self.estimate.new:
            return "reused"
        return "new" if self.estimate.new == self.estimate.shards else "partly new"

    def to_dict(self) -> dict[str, Any]:
        """The preview as JSON values."""
        about = {"kind": self.kind, "fingerprint": self.fingerprint, "status": self.status}
        return {**about, **asdict(self.estimate), "why": [reason.to_dict() for reason in self.why]}


def preview(plan: RunPlan, lake: Lake, since: Since = NOTHING) -> list[StagePreview]:
    """Every stage of `plan`, in the order of the run. Only small objects of the lake are read.

    `since` has the settings that changed since the last run.
    """
    estimator = Estimator(lake, plan.recipe)
    return [_stage(lake, plan.recipe, stage, estimator, since) for stage in plan.stages.values()]


def _stage(lake: Lake, recipe: str, plan: Plan, estimator: Estimator, since: Since) -> StagePreview:
    if isinstance(plan, TablePlan):
        kind, estimate = "table", estimator.table(plan)
    else:
        kind, estimate = "artifact", estimator.artifact(plan)
    if not estimate.new:
        return StagePreview(plan.name, kind, plan.fingerprint, estimate)
    why = reasons(lake, plan, last_made(lake, recipe, plan.name), since.stages.get(plan.name, {}))
    return StagePreview(plan.name, kind, plan.fingerprint, estimate, tuple(why))


def totals(stages: list[StagePreview]) -> Mapping[str, Any]:
    """What is to be computed in all; `unknown` are the stages of which nobody knows how long they take."""
    new = [stage for stage in stages if stage.estimate.new]
    return {
        "stages": len(new),
        "seconds": sum(stage.estimate.seconds or 0.0 for stage in new),
        "size": sum(stage.estimate.size or 0 for stage in new),
        "unknown": [stage.name for stage in new if stage.estimate.seconds is None],
    }
