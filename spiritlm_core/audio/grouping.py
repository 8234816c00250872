"""Which items share a shard. A pure function, and one that leaves earlier shards alone.

A shard's key is made from its members, so an incremental run is cheap exactly if old groups stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spiritlm_core.audio.config import ShardingConfig
from spiritlm_core.audio.item import Item, in_order


def group_items(items: Sequence[Item], kept: Sequence[frozenset[str]], config: ShardingConfig) -> list[list[Item]]:
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


def _pack(items: Iterable[Item], config: ShardingConfig) -> list[list[Item]]:
    """Fill groups one after the other, up to the bounds; an item greater than a shard gets one of its own."""
    groups: list[list[Item]] = []
    room = 0
    for item in items:
        if not groups or len(groups[-1]) == config.shard_items or item.cost > room:
            groups.append([])
            room = config.shard_bytes
        groups[-1].append(item)
        room -= item.cost
    return groups


def _by_content(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (item.sha256 or "", item.start or 0.0, item.end or 0.0, item.key))
