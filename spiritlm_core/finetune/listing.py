"""The rows of a user's data set as what the first table of a fine-tuning is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from spiritlm_core.finetune.config import DataConfig
from spiritlm_core.finetune.rows import TaskRow, rows_table
from spiritlm_core.finetune.template import Template
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.listing import Say, stat_cache


@dataclass(frozen=True)
class Rows:
    """See :class:`spiritlm_core.plan.listing.Listing`."""

    data: DataConfig
    template: Template
    sharding: ShardingConfig

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the data set is."""
        return {"data": self.data.model_dump(mode="json")}

    def items(self, lake: Lake, say: Say) -> list[TaskRow]:  # noqa: ARG002 - there is nothing to tell
        """All rows. Raises SourceError if the data cannot be read, or lacks a column of the template."""
        from spiritlm_core.finetune.reading import read_rows

        with stat_cache(lake, f"cache/finetune/{digest(self.data.path)[:32]}.json") as cache:
            return read_rows(self.data, self.template, cache)

    def table(self, items: Sequence[TaskRow]) -> pa.Table:
        """Rows of :data:`spiritlm_core.finetune.rows.TASK_ROWS`."""
        return rows_table(items)
