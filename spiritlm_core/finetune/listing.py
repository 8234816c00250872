"""The rows of a user's data set as what the first table of a fine-tuning is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from spiritlm_core.finetune.config import DataConfig
from spiritlm_core.finetune.rows import TASK_ROWS, TaskRow
from spiritlm_core.finetune.template import Template
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.listing import Say
from spiritlm_core.intake.statcache import stat_cache
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake


@dataclass(frozen=True)
class Rows:
    """See :class:`spiritlm_core.intake.listing.Listing`."""

    schema: ClassVar[pa.Schema] = TASK_ROWS
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
