"""The contract of everything that goes in: recordings, pieces of text files, rows of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lake.lake import Lake

Say = Callable[[str], None]  # is told a line for people to read


class Listing(Protocol):
    """Lists what is there now."""

    schema: ClassVar[pa.Schema]  # the input rows of the stage, whose columns are the fields of an item

    @property
    def sharding(self) -> ShardingConfig:
        """How many items share a shard."""

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the items come from, for the snapshot; enters no key."""

    def items(self, lake: Lake, say: Say) -> pa.Table:
        """All items as rows of `schema`, in any order, each with a key that names its content. Raises SourceError."""

    def costs(self, items: pa.Table) -> pa.ChunkedArray:
        """Bytes to work through, of each item."""
