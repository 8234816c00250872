"""Items as objects, and how they were listed and grouped one by one: what planning in columns is compared with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from spiritlm_core.intake import recordings
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.item import MOST_CHANNELS, digest
from spiritlm_core.intake.rights import NOTHING, Rights


@dataclasses.dataclass(frozen=True)
class Item:
    """One row of a listing."""

    name: str
    source_uri: str
    language: str
    sha256: str | None = None
    size: int = 0
    start: float | None = None
    end: float | None = None
    channel: int | None = None
    speaker: str | None = None
    text: str | None = None
    label: str | None = None
    origin: str = "recorded"
    rights: Rights = NOTHING
    error: str | None = None
    key: str = ""
    recording_id: str = ""

    @property
    def cost(self) -> int:
        if self.start is None or self.end is None:
            return self.size
        return min(self.size, int((self.end - self.start) * 32_000))


def items_of(table: pa.Table) -> list[Item]:
    """The rows of a listing, sorted by name and place."""
    rows = table.to_pylist()
    return in_order([Item(**{**row, "rights": Rights(**row["rights"])}) for row in rows])


def list_items(*arguments: Any, **more: Any) -> list[Item]:
    """What a source lists, as objects."""
    return items_of(recordings.list_items(*arguments, **more))


def collect(*arguments: Any, **more: Any) -> list[Item]:
    """What several sources list, as objects."""
    return items_of(recordings.collect(*arguments, **more))


def identified(item: Item) -> Item:
    """`item` with its identifiers."""
    if reason := _impossible(item.start, item.end, item.channel):
        item = dataclasses.replace(item, start=None, end=None, channel=None, error=item.error or reason)
    content = (item.sha256, item.start, item.end, item.channel)
    facts = (*content, item.speaker, item.language, item.text, item.label, item.origin)
    key = digest("item", *facts) if item.error is None else digest("bad item", item.name, item.error, *facts)
    recording_id = digest("recording", *content)[:20] if item.error is None and item.sha256 else key[:20]
    return dataclasses.replace(item, key=key, recording_id=recording_id)


def _impossible(start: float | None, end: float | None, channel: int | None) -> str | None:
    if not all(math.isfinite(second) and second >= 0 for second in (start, end) if second is not None):
        return f"the stretch from {start} to {end} s is none of a recording"
    if channel is not None and not 0 <= channel < MOST_CHANNELS:
        return f"no channel {channel}: there may be {MOST_CHANNELS}, counted from 0"
    return None


def reject_duplicates(items: Iterable[Item]) -> list[Item]:
    """Keep one item per recording."""
    ordered = in_order(items)
    kept: dict[str, Item] = {}
    for item in sorted(ordered, key=lambda item: item.text is None):
        kept.setdefault(item.recording_id, item)
    seen: set[str] = set()
    return [_unlike(item, kept[item.recording_id], seen) for item in ordered]


def _unlike(item: Item, first: Item, seen: set[str]) -> Item:
    error, key = item.error, item.key
    if item is not first and error is None:
        same = "duplicate of" if item.key == first.key else "same audio as, but with other particulars than,"
        error = f"{same} {first.name}"
        key = digest("duplicate", item.name, error, item.key)
    while key in seen:
        key = digest("again", key)
    seen.add(key)
    if key == item.key:
        return item
    return dataclasses.replace(item, key=key, recording_id=key[:20], error=error)


def group_items(items: Sequence[Item], kept: Sequence[frozenset[str]], config: ShardingConfig) -> list[list[Item]]:
    """Group items into shards: those of the previous snapshot, then the new items."""
    new = {item.key: item for item in in_order(items)}
    groups = []
    for members in kept:
        still = [new.pop(key) for key in sorted(members) if key in new]
        groups.append(_by_content(still))
    groups += [_by_content(group) for group in _pack(new.values(), config)]
    return [group for group in groups if group]


def _pack(items: Iterable[Item], config: ShardingConfig) -> list[list[Item]]:
    groups: list[list[Item]] = []
    room = 0
    for item in items:
        if not groups or len(groups[-1]) == config.shard_items or item.cost > room:
            groups.append([])
            room = config.shard_bytes
        groups[-1].append(item)
        room -= item.cost
    return groups


def in_order(items: Iterable[Item]) -> list[Item]:
    """Sorted by name and place."""
    return sorted(items, key=lambda item: (item.name, item.start or 0.0, item.end or 0.0, item.key, item.source_uri))


def _by_content(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (item.sha256 or "", item.start or 0.0, item.end or 0.0, item.key))
