"""Small real stages for tests of the lake and of the fan-out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
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
    marker: str = ""


class Numbers(TableStage):
    """The items as rows; negative ones are rejected."""

    name = "numbers"
    version = 1
    inputs = (TableInput("recordings"),)
    schema = NUMBERS

    def process(self, *tables: pa.Table) -> pa.Table:
        rows = []
        for row in tables[0].to_pylist():
            rows.append(rejected(row, self.name, "negative: no") if row["value"] < 0 else row)
        return table_of(rows, NUMBERS)


class Double(TableStage):
    """Doubles every value; can be told to kill its process, to hang, or to fail."""

    name = "doubled"
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
        if self.config.die_on in values and self._first_time():
            os.kill(os.getpid(), 9)
        if self.config.hang_on in values and self._first_time():
            time.sleep(600)
        if self.config.fail_on in values:
            raise ValueError(f"cannot double {self.config.fail_on}")
        out = [row if is_rejected(row) else {**row, "value": row["value"] * self.config.factor} for row in rows]
        return table_of(out, NUMBERS)

    def _first_time(self) -> bool:
        """True once if there is a marker file to remember it by, else always."""
        if not self.config.marker:
            return True
        path = Path(self.config.marker)
        seen = path.exists()
        path.touch()
        return not seen


class SumConfig(FrozenConfig):
    seed: int = 0


class Sum(ArtifactStage):
    name = "sum"
    version = 1
    inputs = (TableInput("numbers"),)

    def build(self, tables, out, work, progress):
        total = sum(value for value in tables["numbers"].read(["value"]).column("value").to_pylist() if value > 0)
        progress(0.5, "added")
        (out / "sub").mkdir()
        (out / "sub" / "sum.txt").write_text(str(total))
        (out / "pid.txt").write_text(str(os.getpid()))
        return {"total": total}
