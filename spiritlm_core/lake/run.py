"""Running one job of a plan on this machine: the only code between a plan and a committed object."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from spiritlm_core.errors import LakeError
from spiritlm_core.files import locked
from spiritlm_core.lake.artifact import Artifact, store_files
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ArtifactPlan, ShardJob, StageCall
from spiritlm_core.lake.schema import AMENDED
from spiritlm_core.lake.shard import ShardFooter, code_version, count_rows
from spiritlm_core.lake.snapshot import ShardEntry, strings
from spiritlm_core.lake.stage import ArtifactStage, Progress, TableStage, silent

Builder = Callable[[Path, Path], dict[str, Any]]
"""Fills an artifact's folder: takes the output and the work folder, returns the summary."""


def run_shard(
    lake: Lake, call: StageCall, stage: TableStage, job: ShardJob, progress: Progress = silent
) -> tuple[ShardEntry, bool]:
    """Compute and commit one shard, unless it is there; returns its entry and whether it was computed here."""
    if lake.has_shard(call.name, job.key):
        return shard_entry(lake, call.name, job.key), False
    began = time.monotonic()
    tables = _input_tables(lake, stage, job)
    stage.progress = progress
    rows = stage.process(*tables)
    _check_output(stage, tables, rows)
    stats = count_rows(rows, call.name, time.monotonic() - began)
    footer = ShardFooter(
        key=job.key,
        table=call.name,
        stage=call.name,
        stage_version=call.version,
        identity=call.identity,
        config=config_json(call.config),
        models=call.digests,
        parents=job.parent_keys,
        members=job.members.to_pylist(),
        code_version=code_version(),
        stats=stats,
    )
    lake.write_shard(rows, footer)
    return ShardEntry(job.key, stats, job.members), True


def shard_entry(lake: Lake, table: str, key: str) -> ShardEntry:
    """The snapshot entry of a shard that is in the lake, from its footer."""
    footer = lake.read_footer(table, key)
    return ShardEntry(key, footer.stats, strings(footer.members))


def _input_tables(lake: Lake, stage: TableStage, job: ShardJob) -> list[pa.Table]:
    if job.rows is not None:
        return [job.rows()]
    columns = {item.table: item.columns for item in stage.inputs}
    return [lake.read_shard(table, key, columns[AMENDED.get(table, table)]) for table, key in job.parents]


def _check_output(stage: TableStage, tables: list[pa.Table], rows: pa.Table) -> None:
    """A stage that loses rows or changes its columns is a programming error, caught before it is committed."""
    if not rows.schema.equals(stage.schema):
        raise LakeError(f"stage {stage.name} returned columns {rows.schema.names}, its schema is {stage.schema.names}")
    first = tables[0]
    if stage.aligned and rows.num_rows != first.num_rows:
        raise LakeError(f"stage {stage.name} returned {rows.num_rows} rows for {first.num_rows}: a row was lost")


def run_artifact(lake: Lake, plan: ArtifactPlan, progress: Progress) -> tuple[Artifact, bool]:
    """Build and commit one artifact, unless it is there; returns it and whether it was built here."""
    stage: ArtifactStage = plan.call.create(lake)
    tables = plan.tables(lake)
    return commit_build(lake, plan, lambda out, work: stage.build(tables, out, work, progress))


def commit_build(lake: Lake, plan: ArtifactPlan, build: Builder) -> tuple[Artifact, bool]:
    """Run `build` in a fresh output folder and commit what it wrote."""
    work = lake.work_folder(plan.name, plan.key)
    with locked(work.with_suffix(".lock")):  # another run of this machine may build it, too
        if finished := lake.read_artifact(plan.name, plan.key):
            return finished, False
        began, out = time.monotonic(), work.with_suffix(".out")
        work.mkdir(parents=True, exist_ok=True)
        # Beside `work`, not in /tmp: training workers on other machines write to it through the same shared storage.
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        summary = build(out, work)
        artifact = lake.commit_artifact(_manifest(lake, plan, out, summary, time.monotonic() - began))
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    return artifact, True


def _manifest(lake: Lake, plan: ArtifactPlan, folder: Path, summary: dict[str, Any], seconds: float) -> Artifact:
    """The manifest of an artifact, whose files it brings into the lake."""
    files, sizes = store_files(lake.store, folder)
    return Artifact(
        key=plan.key,
        name=plan.name,
        stage_version=plan.call.version,
        identity=plan.call.identity,
        config=config_json(plan.call.config),
        models=plan.call.digests,
        inputs=dict(plan.inputs),
        files=files,
        sizes=sizes,
        summary=summary,
        seconds=round(seconds, 3),
        code_version=code_version(),
    )
