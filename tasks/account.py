"""The account of a run: what every stage took in and gave out, which recipe uses it now, and its outputs as files."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.artifact import Artifact
from spiritlm_core.lake.forgotten import forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.lake.plan import ArtifactPlan, Plan, TablePlan
from spiritlm_core.lake.stage import Output
from spiritlm_core.plan.changes import keep_settings
from spiritlm_core.plan.graph import Graph, RunPlan, plan_graph
from tasks.progress import LOOKING, Console

LAST = "config.json"  # written last: a folder without it is not a model yet


@dataclass
class StageReport:
    """The account of one stage. ``rows_in == rows_out + rejected``; an artifact counts as one shard.

    `rows_before` are the good rows of the table that the recipe used before.
    """

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
    rows_before: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


class Account:
    """The reports of the stages of a run that are finished, by name."""

    def __init__(self, plan: RunPlan, lake: Lake, say: Callable[[str], None]) -> None:
        """`say` is told a line or more about every finished stage."""
        self.plan = plan
        self.lake = lake
        self.say = say
        self.reports: dict[str, StageReport] = {}

    def finish(self, plan: Plan, computed: int = 0, seconds: float = 0.0) -> StageReport:
        """Let the recipe refer to what a stage made, and keep its report. Raises LakeError if that is gone."""
        report = self._table(plan, computed) if isinstance(plan, TablePlan) else self._artifact(plan, computed)
        report.rows_before = self._rows_before(plan)
        report.seconds = round(seconds, 2)
        keep = getattr(self.plan.settings, "keep", None)
        self.lake.write_ref(self.plan.recipe, plan.name, report.kind, plan.fingerprint, plan.call.identity, keep)
        self.reports[plan.name] = report
        for line in describe(report):
            self.say(line)
        return report

    def _rows_before(self, plan: Plan) -> int | None:
        """The good rows of the table that the recipe used up to now."""
        ref = self.lake.read_ref(self.plan.recipe, plan.name) if isinstance(plan, TablePlan) else None
        before = ref and self.lake.find_snapshot(plan.name, ref.target)
        return before.totals.rows_out if before else None

    def _table(self, plan: TablePlan, computed: int) -> StageReport:
        snapshot = self.lake.read_snapshot(plan.name, plan.fingerprint)
        if snapshot.lineage != plan.lineage:  # it enters no key: where recordings are, and what is said of them
            snapshot = replace(snapshot, lineage=plan.lineage)
            self.lake.write_snapshot(snapshot)
        totals, count = snapshot.totals, len(snapshot.shards)
        return StageReport(
            name=plan.name,
            kind="table",
            fingerprint=plan.fingerprint,
            rows_in=totals.rows_in,
            rows_out=totals.rows_out,
            rejected=totals.rejected,
            shards_total=count,
            shards_computed=computed,
            shards_reused=count - computed,
            hours=round(totals.audio_seconds / 3600, 4),
            recordings=sum(len(shard.members) for shard in snapshot.shards) or None,
            reasons=totals.reasons,
        )

    def _artifact(self, plan: ArtifactPlan, computed: int) -> StageReport:
        artifact = self.lake.read_artifact(plan.name, plan.key)
        if artifact is None:
            raise LakeError(f"artifact {plan.name}/{plan.key[:12]} was built and is gone; was it deleted meanwhile?")
        rows = self.reports[next(iter(plan.inputs))].rows_out if plan.inputs else 0
        return StageReport(
            name=plan.name,
            kind="artifact",
            fingerprint=plan.key,
            rows_in=rows,
            rows_out=rows,
            shards_total=1,
            shards_computed=computed,
            shards_reused=1 - computed,
            summary=artifact.summary,
        )

    def result(self) -> dict[str, Any]:
        """What a run returns: the reports, and where its outputs are, which are put there now, as its settings are."""
        if self.plan.settings is not None:
            keep_settings(self.lake, self.plan.recipe, self.plan.settings)
        stages = {name: asdict(report) for name, report in self.reports.items()}
        return {"stages": stages, "notes": list(self.plan.notes), **deliver(self.plan, self.lake)}


_left: list[tuple[Any, RunPlan, list[str]]] = []
"""The last run for which `reuse` found work to do, its plan, and what was said while it was made."""


def planned(graph: Graph, lake: Lake, until: tuple[str, ...], refit: bool, say: Callable[[str], None]) -> RunPlan:
    """The plan of a run: that which `reuse` made of the same run in this process just before, else a new one.

    Raises SpiritLMError: see :func:`spiritlm_core.plan.graph.plan_graph`.
    """
    before, _left[:] = [*_left], []
    for run, plan, said in before:
        if run == _run_of(graph, lake, until, refit):
            for line in said:
                say(line)
            return plan
    return plan_graph(graph, lake, *until, refit=refit, say=say)


def _run_of(graph: Graph, lake: Lake, until: tuple[str, ...], refit: bool) -> Any:
    """What tells a run from others: two of which it is the same have the same plan."""
    return graph.recipe, graph.settings or graph, lake.uri, until, refit, forgotten(lake)


def reuse(graph: Graph, lake: Lake, *until: str, refit: bool = False) -> dict[str, Any] | None:
    """The result of a run that finds everything in the lake, without Prefect; None if something is to be computed.

    Raises SpiritLMError: see :func:`spiritlm_core.plan.graph.plan_graph`.
    """
    console, said = Console(), list[str]()
    with hold(lake.store, "run", graph.recipe):
        with console.stage("plan", LOOKING, brief=True):
            plan = plan_graph(graph, lake, *until, refit=refit, say=said.append)
        if not plan.is_complete(lake):
            _left[:] = [(_run_of(graph, lake, until, refit), plan, said)]
            return None
        account = Account(plan, lake, console.say)
        for line in said:
            console.say(line)
        for stage in plan.stages.values():
            account.finish(stage)
        return account.result()


def describe(report: StageReport, commonest: int = 5) -> list[str]:
    """A line about a finished stage, and one for each of the commonest reasons of its rejected rows."""
    if report.kind == "artifact":
        return [f"✓ {report.name:<11} {'built' if report.shards_computed else 'reused'} in {report.seconds:.1f} s"]
    made = f"{report.shards_computed} computed, {report.shards_reused} reused"
    rejected = f", {report.rejected} rejected" if report.rejected else ""
    first = f"✓ {report.name:<11} {report.rows_out} rows{rejected}; shards: {made}; {report.seconds:.1f} s"
    reasons = sorted(report.reasons.items(), key=lambda item: -item[1])
    lines = [f"    {count} times: {reason}" for reason, count in reasons[:commonest]]
    return [first, *lines, *([f"    and {len(reasons) - commonest} other reasons"] if reasons[commonest:] else [])]


def deliver(plan: RunPlan, lake: Lake) -> dict[str, Any]:
    """Copy the `outputs` of the stages of a finished run to ``outputs/RECIPE/`` of the lake; returns where they are."""
    result: dict[str, Any] = {"recipe": plan.recipe, "lake": lake.uri}
    for stage in plan.stages.values():
        artifact = lake.read_artifact(stage.name, stage.key) if isinstance(stage, ArtifactPlan) else None
        if artifact is not None:
            for output in stage.call.stage.outputs:
                result[output.name] = _deliver(lake, artifact, output, f"outputs/{plan.recipe}")
    return result


def _deliver(lake: Lake, artifact: Artifact, output: Output, folder: str) -> Any:
    if output.file is None:
        return put_folder(lake, artifact, f"{folder}/{output.path}")
    data = read_file(lake, artifact, output.file)
    if output.path is None:
        return json.loads(data)
    path = f"{folder}/{output.path}"
    lake.store.update(path, data)
    return lake.store.child(path)


def read_file(lake: Lake, artifact: Artifact, name: str) -> bytes:
    """The bytes of one file of an artifact. Raises LakeError if they are damaged."""
    return (lake.artifact_folder(artifact) / name).read_bytes()


def put_folder(lake: Lake, artifact: Artifact, folder: str) -> str:
    """Copy an artifact's files; a marker with its key makes the second time free."""
    marker = f"{folder}/.artifact"
    if not lake.store.exists(marker) or lake.store.read(marker).decode() != artifact.key:
        lake.store.delete(marker)
        old = {entry.path for entry in lake.store.walk(folder)}
        for name in sorted(artifact.files, key=lambda name: (name == LAST, name)):
            lake.store.write(f"{folder}/{name}", read_file(lake, artifact, name))
        for path in old - {f"{folder}/{name}" for name in artifact.files}:
            lake.store.delete(path)
        lake.store.write(marker, artifact.key.encode())
    return lake.store.child(folder)
