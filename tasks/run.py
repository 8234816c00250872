"""One run of a recipe on a lake: plans every stage from what earlier stages gave, and keeps the account."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import (
    ArtifactPlan,
    ModelSource,
    StageCall,
    TablePlan,
    load_class,
    plan_artifact,
    plan_table,
)
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.recipe import Recipe
from tasks.fanout import FanOut, FanOutSettings
from tasks.progress import Console
from tasks.recordings import plan_recordings
from tasks.texts import plan_documents

LINEAGE = "lineage:"
"""A model role that is given what the run knows about where the inputs of a stage come from."""


@dataclass
class StageReport:
    """The account of one stage. ``rows_in == rows_out + rejected``; an artifact counts as one shard."""

    name: str
    kind: str
    fingerprint: str
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    shards_total: int = 0
    shards_computed: int = 0
    shards_reused: int = 0
    seconds: float = 0.0
    hours: float = 0.0
    recordings: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


class Run:
    """State of one run. Snapshots and artifacts of finished stages are looked up here by later ones."""

    def __init__(self, recipe: Recipe, lake: Lake, console: Console, *, refit: bool = False) -> None:
        """`refit` builds pinned models anew from the corpus as it is now."""
        self.recipe = recipe
        self.lake = lake
        self.console = console
        self.refit = refit
        self.calls: dict[str, StageCall] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.artifacts: dict[str, str] = {}
        self.reports: dict[str, StageReport] = {}
        compute = recipe.compute
        settings = FanOutSettings(
            compute.workers, compute.shard_timeout_seconds, compute.attempts, compute.ray_address, compute.executor
        )
        self.fan_out = FanOut(lake.uri, settings, console.say)

    # --- planning -----------------------------------------------------------------------------------------

    def plan_recordings(self, cls: str, config: FrozenConfig) -> TablePlan:
        """The plan of the `audio` table: the recordings that are there now, in shards that exist where possible."""
        return plan_recordings(self.lake, self.recipe, self._call(cls, config), self.console.say)

    def plan_documents(self, cls: str, config: FrozenConfig) -> TablePlan:
        """The plan of the `documents` table: the texts that are there now, in shards that exist where possible."""
        return plan_documents(self.lake, self.recipe, self._call(cls, config))

    def plan_table(self, cls: str, config: FrozenConfig, models: Mapping[str, str]) -> TablePlan:
        """The plan of a table made from earlier tables."""
        call = self._call(cls, config, self.sources(models))
        return plan_table(call, list(self._inputs(cls).values()), separate=load_class(cls).separate)

    def plan_artifact(
        self,
        cls: str,
        config: FrozenConfig,
        models: Mapping[str, str],
        *,
        pinned: bool,
        made_from: Collection[str] = (),
    ) -> ArtifactPlan:
        """The plan of an artifact; a pinned one stays what it is until its configuration or its models change.

        The role `LINEAGE` is given what is known about the stages called `made_from`.
        """
        call = self._call(cls, config, self.sources(models, made_from))
        return plan_artifact(call, self._inputs(cls), self._pin(call) if pinned and not self.refit else None)

    def _call(self, cls: str, config: FrozenConfig, models: Mapping[str, ModelSource] | None = None) -> StageCall:
        call = StageCall.of(cls, config, models or {})
        self.calls[call.name] = call
        return call

    def _inputs(self, cls: str) -> dict[str, Snapshot]:
        """The tables that a stage reads, without the optional ones that this recipe does not make."""
        wanted = [item.table for item in load_class(cls).inputs if not item.optional or item.table in self.snapshots]
        return {table: self._snapshot(table) for table in wanted}

    def _pin(self, call: StageCall) -> str | None:
        ref = self.lake.read_ref(self.recipe.name, call.name)
        if ref is None or ref.identity != call.identity or self.lake.read_artifact(call.name, ref.target) is None:
            return None
        return ref.target

    def _snapshot(self, table: str) -> Snapshot:
        if table not in self.snapshots:
            raise LakeError(f"table {table!r} is needed before it is made; the order of the stages is wrong")
        return self.snapshots[table]

    def sources(self, models: Mapping[str, str], made_from: Collection[str] = ()) -> dict[str, ModelSource]:
        """Roles to models: names of artifacts of this run, model references, or `LINEAGE`."""
        return {role: self._source(where, made_from) for role, where in models.items()}

    def _source(self, where: str, made_from: Collection[str]) -> ModelSource:
        if where == LINEAGE:
            return ModelSource.of_json(self.lineage(made_from))
        if "://" in where:
            return ModelSource.of_reference(where)
        return ModelSource(self.artifacts[where], artifact=where)

    def lineage(self, made_from: Collection[str]) -> dict[str, Any]:
        """What the stages called `made_from` were: their settings, the models given to them, and what they made."""
        calls = {name: call for name, call in self.calls.items() if name in made_from}
        given = {role: source.reference for call in calls.values() for role, source in call.models.items()}
        return {
            "recipe": self.recipe.name,
            "variant": self.recipe.variant,
            "settings": {name: config_json(call.config) for name, call in calls.items()},
            "given": {role: reference for role, reference in given.items() if reference is not None},
            "tables": {name: made.fingerprint for name, made in self.snapshots.items() if name in made_from},
            "artifacts": {name: key for name, key in self.artifacts.items() if name in made_from},
        }

    # --- keeping the account ------------------------------------------------------------------------------

    def finish_table(self, plan: TablePlan, snapshot: Snapshot, computed: int, began: float) -> StageReport:
        """Remember a finished table, let the recipe refer to it, and return its report."""
        self.snapshots[plan.name] = snapshot
        self.lake.write_ref(self.recipe.name, plan.name, "table", snapshot.fingerprint, plan.call.identity)
        totals, count = snapshot.totals, len(snapshot.shards)
        report = StageReport(
            name=plan.name,
            kind="table",
            fingerprint=snapshot.fingerprint,
            rows_in=totals.rows_in,
            rows_out=totals.rows_out,
            rejected=totals.rejected,
            shards_total=count,
            shards_computed=computed,
            shards_reused=count - computed,
            seconds=round(time.monotonic() - began, 2),
            hours=round(totals.audio_seconds / 3600, 4),
            recordings=sum(len(shard.members) for shard in snapshot.shards) or None,
            reasons=totals.reasons,
        )
        return self._keep(report)

    def finish_artifact(self, plan: ArtifactPlan, *, computed: bool, began: float) -> StageReport:
        """Remember a finished artifact, let the recipe refer to it, and return its report."""
        artifact = self.lake.read_artifact(plan.name, plan.key)
        if artifact is None:
            raise LakeError(f"artifact {plan.name}/{plan.key[:12]} was built and is gone; was it deleted meanwhile?")
        self.artifacts[plan.name] = plan.key
        self.lake.write_ref(self.recipe.name, plan.name, "artifact", plan.key, plan.call.identity)
        rows = sum(snapshot.totals.rows_out for snapshot in list(plan.inputs.values())[:1])
        report = StageReport(
            name=plan.name,
            kind="artifact",
            fingerprint=plan.key,
            rows_in=rows,
            rows_out=rows,
            shards_total=1,
            shards_computed=int(computed),
            shards_reused=int(not computed),
            seconds=round(time.monotonic() - began, 2),
            summary=artifact.summary,
        )
        return self._keep(report)

    def _keep(self, report: StageReport) -> StageReport:
        self.reports[report.name] = report
        return report
