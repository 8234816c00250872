"""What the first tables of a graph are made of: recordings, pieces of text files, rows of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import ShardingConfig, SourceConfig, TextSource
from spiritlm_core.intake.grouping import Member, group_items
from spiritlm_core.intake.item import Item, items_table
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import StageCall, TablePlan, inline_job

if TYPE_CHECKING:
    from spiritlm_core.intake.pieces import Piece

Say = Callable[[str], None]
"""Is told a line for people to read."""

M = TypeVar("M", bound=Member)


class Listing(Protocol[M]):
    """Lists what is there now, and turns a group of items into the rows that the stage is given."""

    @property
    def sharding(self) -> ShardingConfig:
        """How many items share a shard."""

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the items come from, for the snapshot; enters no key."""

    def items(self, lake: Lake, say: Say) -> Sequence[M]:
        """All items, each with a key that names its content. Raises SourceError."""

    def table(self, items: Sequence[M]) -> pa.Table:
        """The input rows of the stage for `items`."""


def plan_listing(listing: Listing[M], call: StageCall, lake: Lake, recipe: str, say: Say) -> TablePlan:
    """One job per group of items; groups that a shard holds already keep its key. Raises SourceError."""
    groups = group_items(listing.items(lake, say), _kept_groups(lake, recipe, call), listing.sharding)
    jobs = [
        inline_job(call.identity, [item.key for item in group], partial(listing.table, group), _about(group))
        for group in groups
    ]
    # Order by key: a set of items has none, and every run must see the same one.
    jobs.sort(key=lambda job: job.key)
    return TablePlan(call, tuple(jobs), {"models": call.digests, **listing.lineage})


def _kept_groups(lake: Lake, recipe: str, call: StageCall) -> list[frozenset[str]]:
    """The members of the shards made by the same stage: this recipe's first, else any other recipe's."""
    refs = [ref for ref in lake.refs() if ref.name == call.name and ref.identity == call.identity]
    if not refs:
        return []
    ref = min(refs, key=lambda ref: (ref.recipe != recipe, ref.recipe))
    return [frozenset(shard.members) for shard in lake.read_snapshot(call.name, ref.target).shards]


def _about(group: Sequence[Member]) -> str:
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{group[0].source_uri}{more}"


@contextmanager
def stat_cache(lake: Lake, path: str) -> Iterator[StatCache]:
    """The hashes of unchanged files, which the lake keeps at `path`; written back if they changed."""
    try:
        known = lake.store.read(path)
    except FileNotFoundError:
        known = b""
    cache = StatCache.from_bytes(known)
    yield cache
    if (now := cache.to_bytes()) != known:
        lake.store.write(path, now)


@dataclass(frozen=True)
class Recordings:
    """The recordings of a recipe's sources."""

    sources: Sequence[SourceConfig]
    language: str
    sharding: ShardingConfig

    @property
    def lineage(self) -> dict[str, Any]:
        """See :class:`Listing`."""
        return {"sources": [source.model_dump(mode="json") for source in self.sources]}

    def items(self, lake: Lake, say: Say) -> list[Item]:
        """`say` is told what was seen and not used, and how many have no transcript. Raises SourceError."""
        from spiritlm_core.intake.notes import notes
        from spiritlm_core.intake.recordings import collect

        cached = f"cache/sources/{digest(self.lineage['sources'])[:32]}.json"
        with stat_cache(lake, cached) as cache, notes() as heard:
            items = collect(self.sources, self.language, cache)
        if not items:
            shown = ", ".join(getattr(source, "path", source.kind) for source in self.sources)
            raise SourceError(f"no recordings found in {shown}; give a folder of audio with --source PATH")
        good = [item for item in items if not item.error]
        if silent := sum(item.text is None for item in good):
            heard.append(f"{silent} of {len(good)} recordings have no transcript")
        for line in heard:
            say(f"  {line}")
        return items

    def table(self, items: Sequence[Item]) -> pa.Table:
        """Rows of :data:`spiritlm_core.intake.item.RECORDINGS`."""
        return items_table(items)


@dataclass(frozen=True)
class Texts:
    """The text documents of a recipe."""

    sources: Sequence[TextSource]

    @property
    def sharding(self) -> ShardingConfig:
        """Small text files share a shard."""
        from spiritlm_core.intake import pieces

        return pieces.SHARDING

    @property
    def lineage(self) -> dict[str, Any]:
        """See :class:`Listing`."""
        return {"sources": [source.model_dump(mode="json") for source in self.sources]}

    def items(self, lake: Lake, say: Say) -> list[Piece]:  # noqa: ARG002 - there is nothing to tell
        """Pieces of text files, each once. Raises SourceError."""
        from spiritlm_core.intake.pieces import collect, list_pieces

        pieces: list[Piece] = []
        for source in self.sources:
            with stat_cache(lake, f"cache/texts/{digest(source.model_dump(mode='json'))[:32]}.json") as cache:
                pieces += list_pieces(source, cache)
        if not pieces:
            shown = ", ".join(source.path for source in self.sources)
            raise SourceError(f"no text documents found in {shown}: name .txt, .jsonl or .parquet files under `texts`")
        return collect(pieces)

    def table(self, items: Sequence[Piece]) -> pa.Table:
        """One row per piece."""
        from spiritlm_core.intake.pieces import pieces_table

        return pieces_table(items)
