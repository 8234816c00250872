"""What a stream draws from: a table whole where it has room in memory, else one block of its shards after the other.

A block is as many shards as there is room for, in an order of the shards that is new in every epoch; its documents are
drawn in random order, while the next block is read. (Block shuffling, as ``py1b`` of mosaicml/streaming does it; where
the bounds lie is found while reading, so that no index of sizes is needed.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from spiritlm_core.lake.view import Loader, TableView, count_values_of
from spiritlm_core.tokens.corpus import of_split
from spiritlm_core.tokens.counter import combine, key_of
from spiritlm_core.tokens.documents import EpochPlanner
from spiritlm_core.tokens.texts import TextPlanner

_NAMES = ("utterance_id", "document_id")  # of rows, which all have one
_IDS = ("text_ids", "speech_ids", "label_ids", "copies.speech_ids")
_WORDS = ("can_switch", "copies.can_switch")
_BYTES = dict.fromkeys(_NAMES, 200) | dict.fromkeys(_IDS, 4) | dict.fromkeys(_WORDS, 17)  # of each value of a column
_READERS = 4  # shards read at a time, which hides the latency of an object store

T = TypeVar("T")
Planner: TypeAlias = EpochPlanner | TextPlanner


@dataclass(frozen=True)
class Block:
    """Some shards of one split of a table."""

    planner: Planner  # plans the documents of its rows
    shards: int  # how many it has
    of: int  # how many the table has
    end: int  # place of the first shard behind it in the order of the epoch

    @property
    def last(self) -> bool:
        """Whether the epoch ends with it."""
        return self.end == self.of


@dataclass(frozen=True)
class Blocks:
    """The blocks of one split of a table, each a pure function of the shards, the epoch and where it begins."""

    view: TableView
    columns: Sequence[str]  # which of them are read
    split: str
    room: float  # bytes in memory of a block, rows of other splits counted
    plan: Callable[[TableView], Planner]
    key: int = 0  # of the order of shards

    def load(self, epoch: int, first: int) -> Block:
        """The block that begins at place `first` in the order of an epoch. Raises LakeError."""
        return self._block(self._taken(self._read, epoch, first), first)

    def whole(self) -> Block | None:
        """The table as one block; None if there is no room for it, as the first footer may tell, or all together."""
        first = [self._count(self.view.loaders[shard]) for shard in self._order(0)[:1]]
        expected = sum(size / max(1, rows) for rows, size in first) * self.view.rows
        many = len(self.view)
        if expected > 4 * self.room or (expected > self.room and len(self._taken(self._count, 0, 0)) < many):
            return None
        rows = self._taken(self._read, 0, 0)
        return self._block(rows, 0) if len(rows) == many else None

    def _block(self, rows: list[pa.Table], first: int) -> Block:
        return Block(self.plan(TableView.of(*rows)), len(rows), len(self.view), first + len(rows))

    def _taken(self, read: Callable[[Loader], tuple[T, int]], epoch: int, first: int) -> list[T]:
        """What `read` makes of each shard of a block; it says their sizes, too."""
        order = self._order(epoch)
        taken: list[T] = []
        size = 0
        with ThreadPoolExecutor(_READERS) as readers:
            while (at := first + len(taken)) < len(order) and size < self.room:
                for one, more in readers.map(read, [self.view.loaders[shard] for shard in order[at : at + _READERS]]):
                    taken.append(one)
                    size += more
        return taken

    def _order(self, epoch: int) -> list[int]:
        """The shards in the order of an epoch."""
        return np.argsort(combine(self._digests, key_of(self.key, epoch)), kind="stable").tolist()

    @cached_property
    def _digests(self) -> np.ndarray:
        """uint64[shards], what each holds: an order of them does not depend on how the table lists them."""
        return np.array([key_of(load.digest()) for load in self.view.loaders], np.uint64)

    def _read(self, load: Loader) -> tuple[pa.Table, int]:
        """The rows of a shard that are of the split, and the size of all."""
        rows = load(self.columns)
        return of_split(rows, self.split), _size(count_values_of(rows))

    def _count(self, load: Loader) -> tuple[int, int]:
        """The number of rows of a shard, and their size, as its footer says."""
        values = load.values()
        return sum(values.get(name, 0) for name in _NAMES), _size(values)


Load: TypeAlias = Callable[[int, int], Block]
"""Gives the block of an epoch that begins with its n-th shard."""


def loads(
    view: TableView,
    split: str,
    plan: Callable[[TableView], Planner],
    columns: Sequence[str],
    streams: Mapping[str, Sequence[str]],
    room: float,
    part: float,
    seed: int,
) -> dict[str, Load]:
    """How streams get the blocks of one split of a table.

    Args:
        view: The table.
        split: Of whose rows.
        plan: Makes a planner of rows.
        columns: What documents of any stream are made from.
        streams: What those of each are made from.
        room: Most bytes of a table that the streams have whole, and in common.
        part: Bytes of a block of one stream if there are more.
        seed: Of the order of shards.
    """
    if not streams:
        return {}
    if whole := Blocks(view, columns, split, room, plan).whole():
        return dict.fromkeys(streams, lambda *_: whole)
    keys = {stream: key_of(seed, stream, "shards") for stream in streams}
    return {stream: Blocks(view, names, split, part, plan, keys[stream]).load for stream, names in streams.items()}


def _size(values: Mapping[str, int]) -> int:
    """Bytes that documents of some rows take in memory, by the number of values of their columns."""
    return sum(count * _BYTES.get(name, 0) for name, count in values.items())
