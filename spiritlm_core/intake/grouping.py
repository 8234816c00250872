"""Which items share a shard. A pure function, and one that leaves earlier shards alone.

A shard's key is made from its members, so an incremental run is cheap exactly if old groups stay as they were.

Items are rows of a table with the columns ``key`` (distinct, of the content), ``name`` (printable path within the
source) and ``source_uri``; ``sha256``, ``start`` and ``end`` (places in the file) order them where they are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lake.schema import Row, table_of

Places = NDArray[np.int64]
"""Numbers of rows, from 0."""


def group_items(
    items: pa.Table, costs: NDArray[np.int64], kept: Sequence[pa.Array], config: ShardingConfig
) -> tuple[list[Places], list[Places]]:
    """Group items into shards: the shards of the previous snapshot, then the new items.

    A previous shard whose members are all still there stays as it is; one that lost members goes on with
    those that remain. Items of no previous shard are packed in order of their names.

    Args:
        items: of one run, in any order, with distinct keys.
        costs: bytes to work through, of each item.
        kept: the member keys of each shard of the previous snapshot; empty for a first run.
        config: bounds of a new shard.

    Returns:
        What is left of each shard of `kept`, which may be nothing; and the new groups.
    """
    owners = np.repeat(np.arange(len(kept)), np.array([len(members) for members in kept], np.int64))
    found = pc.index_in(items["key"], value_set=pa.chunked_array(kept, pa.string()))
    shard = np.append(owners, len(kept))[pc.fill_null(found, len(owners)).to_numpy()]
    places = np.argsort(shard, kind="stable")
    *old, new = np.split(places, np.searchsorted(shard, np.arange(len(kept)), side="right", sorter=places))
    new = new[_order(items.take(new), "name", "start", "end", "key", "source_uri")]
    return old, np.split(new, _borders(costs[new].tolist(), config))[: len(new)]


def _borders(costs: Sequence[int], config: ShardingConfig) -> list[int]:
    """Fill groups one after the other, up to the bounds; an item greater than a shard gets one of its own.

    Returns where each but the first begins.
    """
    borders, room = [0], config.shard_bytes
    for place, cost in enumerate(costs):
        if place - borders[-1] == config.shard_items or (cost > room and place > borders[-1]):
            borders.append(place)
            room = config.shard_bytes
        room -= cost
    return borders[1:]


def _order(items: pa.Table, *columns: str) -> NDArray[np.uint64]:
    """Numbers of the rows in the order of `columns`, as far as they are there; null is the empty text, or zero."""
    present = [name for name in columns if name in items.column_names]
    filled = {name: pc.fill_null(items[name], "" if pa.types.is_string(items[name].type) else 0) for name in present}
    return np.asarray(pc.sort_indices(pa.table(filled), [(name, "ascending") for name in present]))


def in_order(items: pa.Table) -> list[Row]:
    """Sorted by name and place: the one order that does not depend on how a folder was listed."""
    rows: list[Row] = items.take(_order(items, "name", "start", "end", "key", "source_uri")).to_pylist()
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class ItemRows:
    """The items of one shard as the input rows of its stage; another process is sent these alone.

    Rows are ordered by content, so that renaming a file changes nothing and the stretches of one file stay together.
    """

    items: pa.Table
    places: Places

    def __call__(self) -> pa.Table:
        """The rows."""
        rows = self.items.take(self.places)
        return rows.take(_order(rows, "sha256", "start", "end", "key"))

    def __reduce__(self) -> Any:
        """Pickle."""
        return ItemRows, (self().combine_chunks(), np.arange(len(self.places)))


def items_table(items: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Items, which are dataclasses with the fields of `schema`, as its rows, in the order given."""
    return table_of([dataclasses.asdict(item) for item in items], schema)
