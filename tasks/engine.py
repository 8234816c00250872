"""Running a graph: one Prefect task per stage, which sees a fingerprint and gives a reference; the lake holds data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.context import TaskRunContext

from spiritlm_core.failures import one_line
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import hold
from spiritlm_core.lake.plan import ArtifactPlan, Plan, ShardJob, TablePlan
from spiritlm_core.lake.run import commit_build, shard_entry
from spiritlm_core.lake.shard import ShardStats
from spiritlm_core.lake.snapshot import ShardEntry, Snapshot, add_stats
from spiritlm_core.lake.stage import NOTE, Progress
from spiritlm_core.plan.graph import Graph, RunPlan
from spiritlm_core.recipe import ComputeConfig
from tasks.account import Account, StageReport, planned
from tasks.artifacts import ProgressArtifact, run_table, show_outputs, stage_table, training_curves
from tasks.dashboard import show_dashboard, tell_computed
from tasks.flow_runs import explaining, log
from tasks.pool import FanOut
from tasks.progress import LOOKING, Console

Reference = dict[str, str]


def run_graph(graph: Graph, lake: Lake, compute: ComputeConfig, *until: str, refit: bool = False) -> dict[str, Any]:
    """Run the stages of `graph`, or those called `until` and what they are made from, inside a flow.

    Returns the account of every stage, and where the outputs are. Raises SpiritLMError: a stage failed.
    """
    console = Console()
    graph.wanted(*compute.stages)
    with hold(lake.store, "run", graph.recipe):
        with console.stage("plan", LOOKING):
            plan = planned(graph, lake, until, refit=refit, say=console.say)
            plan.fetch_models(lake)
        run = Run(plan, lake, compute, console)
        try:
            for stage in plan.stages.values():
                run_stage(run, stage)
        except Exception as error:
            show_dashboard(run.account, {}, one_line(error))
            raise
        finally:
            run.fan_out.close()
            run_table(list(run.account.reports.values()))
        result = run.account.result()
        show_outputs(plan, lake, result)
        show_dashboard(run.account, result)
    return result


class Run:
    """What the stages of one run share."""

    def __init__(self, plan: RunPlan, lake: Lake, compute: ComputeConfig, console: Console) -> None:
        """Workers are started when something has to be computed."""
        self.lake = lake
        self.compute = compute
        self.console = console
        self.account = Account(plan, lake, self.tell)
        self.fan_out = FanOut(lake.uri, compute, console.say)

    def tell(self, line: str) -> None:
        """Print a line, and put it into the log of the flow run."""
        self.console.say(line)
        log(line)


@dataclass
class Assignment:
    """What a task is given: a run and one plan. A plain object, so that Prefect passes it on untouched."""

    run: Run
    plan: Plan
    computed: int = 0
    made: ShardStats | None = None


def store_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """The cache key: the plan's fingerprint on its lake."""
    del context
    work: Assignment = parameters["work"]
    return f"spiritlm-{digest([work.run.lake.uri, work.plan.name, work.plan.fingerprint])}"


def run_stage(run: Run, plan: Plan) -> StageReport:
    """Run one stage as a Prefect task, or take it from the cache; returns its report. Raises what stopped the task."""
    work, began = Assignment(run, plan), time.monotonic()
    # The lake is the truth: what it lacks is computed, whatever Prefect remembers.
    stage = stage_task(plan.name).with_options(refresh_cache=not plan.is_complete(run.lake))
    state: Any = stage(work, return_state=True)
    if not state.is_completed():
        state.result()
    report = run.account.finish(plan, work.computed, time.monotonic() - began)
    if work.computed and isinstance(plan, ArtifactPlan):
        training_curves(run.lake, plan)
    if work.made is not None:
        tell_computed(run.account.plan.recipe, plan.name, work.made)
    stage_table(report)
    return report


@cache
def stage_task(name: str) -> Task[[Assignment], Reference]:
    """The Prefect task of the stage called `name`."""
    options: dict[str, Any] = {"persist_result": True, "result_serializer": "json", "log_prints": False}
    return task(name=name, task_run_name=name, cache_key_fn=store_key, cache_expiration=timedelta(days=30), **options)(
        explaining(_execute)
    )


def _execute(work: Assignment) -> Reference:
    run, plan = work.run, work.plan
    about = plan.call.stage.about
    artifact = ProgressArtifact(plan.name, about)
    with run.console.stage(plan.name, about) as meter:

        def progress(fraction: float, message: str) -> None:
            if message.startswith(NOTE):
                run.console.say(f"  {plan.name:<11} {message}")
            meter(fraction, message)
            artifact.update(fraction)

        if isinstance(plan, TablePlan):
            if made := _compute_table(run, plan, progress):
                work.computed, work.made = len(made), add_stats(made)
        elif not plan.is_complete(run.lake):
            work.computed = int(_build_artifact(run, plan, progress))
        artifact.update(1.0, force=True)
    return {"stage": plan.name, "fingerprint": plan.fingerprint, "lake": run.lake.uri}


def _compute_table(run: Run, plan: TablePlan, progress: Progress) -> list[ShardStats]:
    """Compute the shards that the lake lacks and write the snapshot; returns what happened in those computed here."""
    missing = _largest_first(run.lake, plan.missing(run.lake))
    entries: dict[str, ShardEntry] = {}
    begun: dict[str, float] = {}  # how much of a shard is done that a worker has now
    computed = []

    def show(key: str, fraction: float) -> None:
        begun[key] = fraction
        progress(sum(begun.values()) / len(missing), f"{len(entries)} of {len(missing)} shards")

    def done(entry: ShardEntry, made_now: bool) -> None:
        entries[entry.key] = entry
        if made_now:
            computed.append(entry.stats)
        show(entry.key, 1.0)

    if missing:
        progress(0.0, f"{len(missing)} of {len(plan.jobs)} shards to compute")
        run.fan_out.run_shards(plan.call, missing, plan.call.stage.resources, done, show)
    shards = tuple(entries.get(job.key) or shard_entry(run.lake, plan.name, job.key) for job in plan.jobs)
    run.lake.write_snapshot(Snapshot(plan.name, plan.call.identity, shards, plan.lineage))
    return computed


def _largest_first(lake: Lake, jobs: list[ShardJob]) -> list[ShardJob]:
    """`jobs` by the bytes of what they are made from: a large one that begins last keeps the other workers waiting."""
    tables = {table for job in jobs for table, _ in job.parents}
    sizes = {table: lake.shard_sizes(table) for table in tables}
    return sorted(jobs, key=lambda job: -sum(sizes[table].get(key, 0) for table, key in job.parents))


def _build_artifact(run: Run, plan: ArtifactPlan, progress: Progress) -> bool:
    """Build the artifact in a worker, or in processes of its own; returns whether it was built here."""
    cls, tables = plan.call.stage, plan.tables(run.lake)
    cls.check(tables, run.console.say)
    compute = getattr(run.compute, cls.processes) if cls.processes else None
    if compute is None or not compute.own_workers:
        return run.fan_out.run_artifact(plan, cls.resources, progress)[1]
    stage = plan.call.create(run.lake)

    def build(out: Path, work: Path) -> dict[str, Any]:
        return run.fan_out.run_job(plan.name, FitJob.of(stage, tables, out, work, compute), progress)

    return commit_build(run.lake, plan, build)[1]
