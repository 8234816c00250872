"""Small real stages for tests of the lake and of the fan-out."""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from pathlib import Path

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.care import note_export
from spiritlm_core.lake.plan import StageCall, TablePlan, inline_job, plan_artifact
from spiritlm_core.lake.run import run_artifact, run_shard
from spiritlm_core.lake.schema import is_rejected, rejected, table_of
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.lake.stage import ArtifactStage, TableInput, TableStage

NUMBERS = pa.schema(
    [
        pa.field("value", pa.int64()),
        pa.field("reject_stage", pa.string()),
        pa.field("reject_reason", pa.string()),
    ]
)


class DoubleConfig(FrozenConfig):
    factor: int = 2
    die_on: int | None = None
    hang_on: int | None = None
    fail_on: int | None = None
    fault: str = "value"
    seconds: float = 0.0
    marker: str = ""
    gate: str = ""


class OddError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{number} is {what}")


FAULTS = {
    "value": ValueError("cannot double 1"),
    "memory": MemoryError("no memory"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "odd": OddError(7, "odd"),
    "lake": LakeError("no such voice"),
}


class Numbers(TableStage):
    """The items as rows; negative ones are rejected."""

    name = "numbers"
    about = "the items as rows"
    version = 1
    inputs = (TableInput("recordings"),)
    schema = NUMBERS

    def process(self, *tables: pa.Table) -> pa.Table:
        rows = tables[0].select(NUMBERS.names).to_pylist()
        checked = [rejected(row, self.name, "negative: no") if row["value"] < 0 else row for row in rows]
        return table_of(checked, NUMBERS)


class Double(TableStage):
    """Doubles every value; can be told to kill its process, to hang, to fail, or to wait with all but zero."""

    name = "doubled"
    about = "twice the numbers"
    version = 1
    inputs = (TableInput("numbers"),)
    schema = NUMBERS
    config: DoubleConfig

    def setup(self) -> None:
        self.ready = True

    def process(self, *tables: pa.Table) -> pa.Table:
        assert self.ready
        rows = tables[0].to_pylist()
        values = [row["value"] for row in rows]
        if self.config.die_on in values and first_time(self.config.marker):
            os.kill(os.getpid(), 9)
        if self.config.hang_on in values and first_time(self.config.marker):
            time.sleep(600)
        self.progress(0.5, "")
        time.sleep(self.config.seconds)
        while self.config.gate and any(values) and not Path(self.config.gate).exists():
            time.sleep(0.05)
        if self.config.fail_on in values:
            raise FAULTS[self.config.fault]
        out = [row if is_rejected(row) else {**row, "value": row["value"] * self.config.factor} for row in rows]
        return table_of(out, NUMBERS)


def first_time(marker: str) -> bool:
    """True once if there is a marker file to remember it by, else always."""
    if not marker:
        return True
    path = Path(marker)
    seen = path.exists()
    path.write_text(str(os.getpid()))
    return not seen


class SumConfig(FrozenConfig):
    seed: int = 0
    die: bool = False
    hang: bool = False
    marker: str = ""
    reports: int = 1


class Sum(ArtifactStage):
    name = "sum"
    about = "their sum"
    version = 1
    inputs = (TableInput("numbers"),)

    def build(self, tables, out, work, progress):
        total = sum(value for value in tables["numbers"].read(["value"]).column("value").to_pylist() if value > 0)
        for _ in range(self.config.reports):
            progress(0.5, "added")
        if self.config.hang and first_time(self.config.marker):
            time.sleep(600)
        if self.config.die and first_time(self.config.marker):
            os.kill(os.getpid(), 9)
        (out / "sub").mkdir()
        (out / "sub" / "sum.txt").write_text(str(total))
        (out / "pid.txt").write_text(str(os.getpid()))
        return {"total": total}


def rows(*values):
    return pa.table(
        {"value": list(values), "reject_stage": [None] * len(values), "reject_reason": [None] * len(values)}
    )


def numbers_plan(*groups, config=None):
    call = StageCall.of("tests.lake.stages:Numbers", config or SumConfig(), {})
    return TablePlan(
        call, tuple(inline_job(call.identity, [str(v) for v in group], partial(rows, *group)) for group in groups)
    )


def execute(lake, plan, recipe="r", keep=None):
    stage = plan.call.create(lake)
    stage.setup()
    entries = [run_shard(lake, plan.call, stage, job) for job in plan.jobs]
    snapshot = Snapshot(plan.name, plan.call.identity, tuple(entry for entry, _ in entries), plan.lineage)
    lake.write_snapshot(snapshot)
    lake.write_ref(recipe, plan.name, "table", snapshot.fingerprint, plan.call.identity, keep)
    return snapshot, [computed for _, computed in entries]


def no_progress(fraction, message):
    pass


def fill(lake):
    """A lake with an object of every kind but leases; returns its one artifact."""
    snapshot, _ = execute(lake, numbers_plan((1, 2), (3, -4)))
    plan = plan_artifact(StageCall.of("tests.lake.stages:Sum", SumConfig(), {}), {"numbers": snapshot})
    artifact, _ = run_artifact(lake, plan, no_progress)
    lake.write_ref("r", "sum", "artifact", artifact.key, plan.call.identity)
    note_export(lake, "/exports/one", [snapshot.fingerprint])
    return artifact
