"""Which items share a shard. A pure function, and one that leaves earlier shards alone.

A shard's key is made from its members, so an incremental run is cheap exactly if old groups stay as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.lake.schema import table_of


class Member(Protocol):
    """What can share a shard with others: a recording, a piece of a text file."""

    @property
    def key(self) -> str:
        """Identifies it."""

    @property
    def name(self) -> str:
        """Printable path within its source."""

    @property
    def source_uri(self) -> str:
        """Where it lies."""

    @property
    def sha256(self) -> str | None:
        """Of its content."""

    @property
    def start(self) -> float | None:
        """Where it begins in its file; only the order counts."""

    @property
    def end(self) -> float | None:
        """Where it ends."""

    @property
    def cost(self) -> int:
        """Bytes to work through."""


M = TypeVar("M", bound=Member)


def group_items(items: Sequence[M], kept: Sequence[frozenset[str]], config: ShardingConfig) -> list[list[M]]:
    """Group items into shards: the shards of the previous snapshot, then the new items.

    A previous shard whose members are all still there stays as it is; one that lost members goes on with
    those that remain. Items of no previous shard are packed in order of their names.

    Args:
        items: of one run, in any order, with distinct keys.
        kept: the member keys of each shard of the previous snapshot; empty for a first run.
        config: bounds of a new shard.

    Returns:
        Groups, none of them empty. Within a group items are ordered by content, so that renaming a file
        changes nothing and the stretches of one file stay together.
    """
    new = {item.key: item for item in in_order(items)}
    groups = []
    for members in kept:
        still = [new.pop(key) for key in sorted(members) if key in new]
        groups.append(_by_content(still))
    groups += [_by_content(group) for group in _pack(new.values(), config)]
    return [group for group in groups if group]


def _pack(items: Iterable[M], config: ShardingConfig) -> list[list[M]]:
    """Fill groups one after the other, up to the bounds; an item greater than a shard gets one of its own."""
    groups: list[list[M]] = []
    room = 0
    for item in items:
        if not groups or len(groups[-1]) == config.shard_items or item.cost > room:
            groups.append([])
            room = config.shard_bytes
        groups[-1].append(item)
        room -= item.cost
    return groups


def in_order(items: Iterable[M]) -> list[M]:
    """Sorted by name and place: the one order that does not depend on how a folder was listed."""
    return sorted(items, key=lambda item: (item.name, item.start or 0.0, item.end or 0.0, item.key, item.source_uri))


def _by_content(items: Iterable[M]) -> list[M]:
    return sorted(items, key=lambda item: (item.sha256 or "", item.start or 0.0, item.end or 0.0, item.key))


def items_table(items: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Items, which are dataclasses with the fields of `schema`, as its rows, in the order given."""
    return table_of([dataclasses.asdict(item) for item in items], schema)
