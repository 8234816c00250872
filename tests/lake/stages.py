"""Small real stages for tests of the lake and of the fan-out."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.schema import is_rejected, rejected, table_of
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
        rows = []
        for row in tables[0].to_pylist():
            rows.append(rejected(row, self.name, "negative: no") if row["value"] < 0 else row)
        return table_of(rows, NUMBERS)


class Double(TableStage):
    """Doubles every value; can be told to kill its process, to hang, to fail, or to wait for a file with all but zero."""

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
