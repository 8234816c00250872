"""The stage `selection`: which segments a recipe leaves out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import Plan, TablePlan
from spiritlm_core.lake.schema import REJECT
from spiritlm_core.lake.shard import reason_group
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.quality.config import COLUMNS, Condition, SelectionConfig

SELECTION = pa.schema(
    [pa.field("utterance_id", pa.string(), nullable=False), pa.field("duration", pa.float64()), *REJECT]
)
_COMPARISONS = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    ">": pc.greater,
    "<": pc.less,
    "==": pc.equal,
    "!=": pc.not_equal,
}


class SelectionStage(TableStage):
    """Rejects the segments that do not fulfil the filters, and copies of others where ``duplicates`` are given."""

    name: ClassVar[str] = "selection"
    about: ClassVar[str] = "which segments filters and duplicates leave"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("quality", ("utterance_id", *COLUMNS, "reject_stage", "reject_reason")),
    )
    schema: ClassVar[pa.Schema] = SELECTION
    config: SelectionConfig

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row per segment."""
        (quality,) = tables
        broken = reasons(quality, self.config.filters)
        copies = map(self._copies.get, quality["utterance_id"].to_pylist())
        mine = [first or second for first, second in zip(broken, copies, strict=True)]
        stages, whys = (quality[name].to_pylist() for name in ("reject_stage", "reject_reason"))
        return pa.table(
            [
                quality["utterance_id"],
                quality["duration"],
                pa.array([s or (self.name if r else None) for s, r in zip(stages, mine, strict=True)], pa.string()),
                pa.array([w or r for w, r in zip(whys, mine, strict=True)], pa.string()),
            ],
            schema=SELECTION,
        )

    @cached_property
    def _copies(self) -> dict[str, str]:
        """utterance_id of each copy → why it is left out; read once for all shards."""
        if "duplicates" not in self.models:
            return {}
        table = pq.read_table(self.models["duplicates"] / "duplicates.parquet", columns=["utterance_id", "reason"])
        return dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def reasons(quality: pa.Table, filters: Iterable[str]) -> list[str | None]:
    """The first condition that each row breaks, in words; what was not measured breaks none."""
    told: list[str | None] = [None] * quality.num_rows
    for condition in map(Condition.parse, filters):
        column = quality[condition.column]
        fulfilled = _COMPARISONS[condition.operator](column, pa.scalar(condition.value, column.type))
        for row in np.flatnonzero(~pc.fill_null(fulfilled, True).to_numpy()):
            told[row] = told[row] or condition.reason(column[row].as_py())
    return told


def would_drop(stages: Mapping[str, Plan], lake: Lake) -> dict[str, int] | None:
    """How many segments each filter leaves out, where that is planned and the table `quality` is there; else null."""
    selection, quality = stages.get(SelectionStage.name), stages.get("quality")
    if selection is None or not isinstance(quality, TablePlan) or not quality.is_complete(lake):
        return None
    filters = selection.call.config.filters  # type: ignore[attr-defined]
    conditions = [Condition.parse(each) for each in filters]
    dropped = Counter({condition.broken: 0 for condition in conditions})
    if selection.is_complete(lake):
        counted = lake.read_snapshot(selection.name, selection.fingerprint).totals.reasons
        return {broken: counted.get(reason_group(broken), 0) for broken in dropped}
    for key in quality.keys:
        rows = lake.peek_shard(quality.name, key, sorted({"reject_stage", *(one.column for one in conditions)}))
        good = rows.filter(pc.is_null(rows["reject_stage"]))
        dropped.update(reason.partition(":")[0] for reason in reasons(good, filters) if reason)
    return dict(dropped)
