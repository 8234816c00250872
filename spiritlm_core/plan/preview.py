"""What a run would do, stage by stage: reused or new, why, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spiritlm_core.config import FrozenConfig
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import Plan, TablePlan
from spiritlm_core.plan.estimate import Estimate, Estimator
from spiritlm_core.plan.planner import RunPlan
from spiritlm_core.plan.reasons import Reason, last_made, reasons
from spiritlm_core.plan.settings import Settings


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


def preview(plan: RunPlan, recipe: FrozenConfig, lake: Lake) -> list[StagePreview]:
    """Every stage of `plan`, in the order of the run. Only small objects of the lake are read.

    Args:
        plan: of `recipe` on `lake`.
        recipe: names the settings.
        lake: holds the results of earlier runs.
    """
    settings, estimator = Settings(recipe), Estimator(lake, plan.recipe)
    return [_stage(lake, plan.recipe, stage, settings, estimator) for stage in plan.stages.values()]


def _stage(lake: Lake, recipe: str, plan: Plan, settings: Settings, estimator: Estimator) -> StagePreview:
    is_table = isinstance(plan, TablePlan)
    estimate = estimator.table(plan) if isinstance(plan, TablePlan) else estimator.artifact(plan)
    why = reasons(lake, plan, last_made(lake, recipe, plan.name), settings) if estimate.new else []
    return StagePreview(plan.name, "table" if is_table else "artifact", plan.fingerprint, estimate, tuple(why))


def totals(stages: list[StagePreview]) -> Mapping[str, Any]:
    """What is to be computed in all; `unknown` are the stages of which nobody knows how long they take."""
    new = [stage for stage in stages if stage.estimate.new]
    return {
        "stages": len(new),
        "seconds": sum(stage.estimate.seconds or 0.0 for stage in new),
        "size": sum(stage.estimate.size or 0 for stage in new),
        "unknown": [stage.name for stage in new if stage.estimate.seconds is None],
    }
