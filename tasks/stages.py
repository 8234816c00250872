"""One Prefect task per stage. Prefect sees the fingerprint and a small reference; the lake holds the data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.context import TaskRunContext

from spiritlm_core.finetune.train_stage import FinetuneStage
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.plan import ArtifactPlan, TablePlan, load_class
from spiritlm_core.lake.run import commit_build, shard_entry
from spiritlm_core.lake.snapshot import ShardEntry, Snapshot
from spiritlm_core.lake.stage import NOTE, ArtifactStage, Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import ModelConfig
from spiritlm_core.lm.train.job import Job
from spiritlm_core.recipe import ComputeConfig
from tasks.artifacts import ProgressArtifact, stage_table, training_curves
from tasks.flow_runs import explaining, log
from tasks.run import Run, StageReport

Plan = TablePlan | ArtifactPlan
TRAININGS = ("model", FinetuneStage.name)
UNIT_FITS = ("hubert", "quantizer", "pitch", "style", "vocoder")
SHARED_FITS = ("hubert", "vocoder")  # several processes can fit one of these together
METRICS = "metrics.parquet"  # of a training run
Reference = dict[str, str]


class Assignment:
    """What a task is given: a run and one plan. A plain object, so that Prefect passes it on untouched."""

    def __init__(self, run: Run, plan: Plan, about: str) -> None:
        """`about` is shown beside the progress bar."""
        self.run = run
        self.plan = plan
        self.about = about
        self.computed = 0


def store_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """The cache key: the plan's fingerprint on its lake."""
    del context
    work: Assignment = parameters["work"]
    return f"spiritlm-{digest([work.run.lake.uri, work.plan.name, work.plan.fingerprint])}"


def run_stage(run: Run, plan: Plan, about: str) -> StageReport:
    """Run one stage as a Prefect task, or take it from the cache; returns the account. Raises what stopped the task."""
    work, began = Assignment(run, plan, about), time.monotonic()
    # The lake is the truth: what it lacks is computed, whatever Prefect remembers.
    stage = stage_task(plan.name).with_options(refresh_cache=not plan.is_complete(run.lake))
    state: Any = stage(work, return_state=True)
    if not state.is_completed():
        state.result()
    if isinstance(plan, TablePlan):
        snapshot = run.lake.read_snapshot(plan.name, plan.fingerprint)
        report = run.finish_table(plan, snapshot, work.computed, began)
    else:
        report = run.finish_artifact(plan, computed=bool(work.computed), began=began)
        _show_curves(run, plan, computed=bool(work.computed))
    stage_table(report)
    for line in describe(report):
        run.console.say(line)
        log(line)
    return report


def _show_curves(run: Run, plan: ArtifactPlan, *, computed: bool) -> None:
    """The losses of a model that was just trained."""
    artifact = run.lake.read_artifact(plan.name, plan.key) if computed else None
    if artifact is not None and METRICS in artifact.files:
        training_curves(run.lake.artifact_folder(artifact) / METRICS)


@cache
def stage_task(name: str) -> Task[[Assignment], Reference]:
    """The Prefect task of the stage called `name`."""
    options: dict[str, Any] = {"persist_result": True, "result_serializer": "json", "log_prints": False}
    return task(name=name, task_run_name=name, cache_key_fn=store_key, cache_expiration=timedelta(days=30), **options)(
        explaining(_execute)
    )


def _execute(work: Assignment) -> Reference:
    artifact = ProgressArtifact(work.plan.name, work.about)
    with work.run.console.stage(work.plan.name, work.about) as meter:

        def progress(fraction: float, message: str) -> None:
            if message.startswith(NOTE):
                work.run.console.say(f"  {work.plan.name:<11} {message}")
            meter(fraction, message)
            artifact.update(fraction)

        if isinstance(work.plan, TablePlan):
            _compute_table(work, work.plan, progress)
        else:
            _build_artifact(work, work.plan, progress)
        artifact.update(1.0, force=True)
    return {"stage": work.plan.name, "fingerprint": work.plan.fingerprint, "lake": work.run.lake.uri}


def _compute_table(work: Assignment, plan: TablePlan, progress: Progress) -> None:
    lake, missing = work.run.lake, plan.missing(work.run.lake)
    entries: dict[str, ShardEntry] = {}

    def done(entry: ShardEntry, computed: bool) -> None:
        entries[entry.key] = entry
        work.computed += computed
        progress(len(entries) / len(missing), f"{len(entries)} of {len(missing)} shards")

    if missing:
        progress(0.0, f"{len(missing)} of {len(plan.jobs)} shards to compute")
        work.run.fan_out.run_shards(plan.call, missing, load_class(plan.call.cls).resources, done)
    shards = tuple(entries.get(job.key) or shard_entry(lake, plan.name, job.key) for job in plan.jobs)
    lake.write_snapshot(Snapshot(plan.name, plan.call.identity, shards, plan.lineage))


def _build_artifact(work: Assignment, plan: ArtifactPlan, progress: Progress) -> None:
    if plan.is_complete(work.run.lake):
        return
    if _has_own_workers(plan.name, work.run.recipe.compute):
        work.computed = int(_train(work.run, plan, progress))
        return
    resources = load_class(plan.call.cls).resources
    work.computed = int(work.run.fan_out.run_artifact(plan, resources, progress)[1])


def _has_own_workers(name: str, compute: ComputeConfig) -> bool:
    return name in TRAININGS or (name in UNIT_FITS and compute.units.own_workers)


def _train(run: Run, plan: ArtifactPlan, progress: Progress) -> bool:
    """Training has processes of its own; this one commits what they make."""
    stage = plan.call.create(run.lake)
    tables = {table: run.lake.view(snapshot) for table, snapshot in plan.inputs.items()}

    def build(out: Path, work: Path) -> dict[str, Any]:
        return run.fan_out.run_job(plan.name, _job(plan, stage, run.recipe.compute, tables, out, work), progress)

    return commit_build(run.lake, plan, stage, build)[1]


def _job(
    plan: ArtifactPlan,
    stage: ArtifactStage,
    compute: ComputeConfig,
    tables: Mapping[str, TableView],
    out: Path,
    work: Path,
) -> Job | FitJob:
    """The build of a stage as a job that other processes can run."""
    if isinstance(stage, FinetuneStage):
        return stage.job(compute.training, tables, out, work)
    if isinstance(stage.config, ModelConfig):
        return Job.of_stage(stage.config, compute.training, stage.models, tables, out, work)
    workers = compute.units.workers if plan.name in SHARED_FITS else 1
    processes = compute.units.model_copy(update={"workers": workers})
    return FitJob(plan.call.cls, stage.config, stage.models, tables, work, out, processes)


def describe(report: StageReport, commonest: int = 5) -> list[str]:
    """A line about a finished stage, and one for each of the commonest reasons of its rejected rows."""
    made = f"{report.shards_computed} computed, {report.shards_reused} reused"
    if report.kind == "artifact":
        return [f"✓ {report.name:<11} {'built' if report.shards_computed else 'reused'} in {report.seconds:.1f} s"]
    rejected = f", {report.rejected} rejected" if report.rejected else ""
    first = f"✓ {report.name:<11} {report.rows_out} rows{rejected}; shards: {made}; {report.seconds:.1f} s"
    reasons = sorted(report.reasons.items(), key=lambda item: -item[1])
    lines = [f"    {count} times: {reason}" for reason, count in reasons[:commonest]]
    return [first, *lines, *([f"    and {len(reasons) - commonest} other reasons"] if reasons[commonest:] else [])]
