"""A snapshot: a small Parquet file that names the shards of one table, with what is in them and lineage.

A *ref* is the one thing in the lake that changes: it says which snapshot (or artifact) of a table a
recipe uses now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, cast

import pyarrow as pa
from pydantic import Field, PlainValidator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import CURE, STRICT, Digest, from_json, snapshot_fingerprint, to_json
from spiritlm_core.lake.shard import ShardStats, check_shard, encode_parquet, read_about, read_rows
from spiritlm_core.names import FileName

_COUNTS = [(name, pa.int64()) for name in ("rows_in", "rows_out", "rejected", "upstream")]
_SECONDS = [(name, pa.float64()) for name in ("seconds", "audio_seconds")]
SHARDS = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("stats", pa.struct([*_COUNTS, ("reasons", pa.map_(pa.string(), pa.int64())), *_SECONDS])),
        pa.field("members", pa.list_(pa.string())),
    ]
)
"""A row for each shard of a snapshot; see :class:`ShardEntry`."""


def strings(values: Iterable[str] = ()) -> pa.StringArray:
    """Texts as a column. Raises ValueError where one is none."""
    try:
        return pa.array(values, pa.string())
    except TypeError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True)
class ShardEntry:
    """One shard as a snapshot knows it. `members` are the item keys of an audio shard, else empty."""

    __pydantic_config__ = STRICT

    key: Digest
    stats: ShardStats
    members: Annotated[pa.StringArray, PlainValidator(strings)] = field(default_factory=strings)


@dataclass(frozen=True)
class Snapshot:
    """The state of one table: a set of shards in a fixed order."""

    __pydantic_config__ = STRICT

    table: FileName
    identity: Digest
    shards: tuple[ShardEntry, ...]
    lineage: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The table's name, as a plan has it."""
        return self.table

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the shards, in the snapshot's order."""
        return tuple(shard.key for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """See :func:`spiritlm_core.lake.fingerprint.snapshot_fingerprint`."""
        return snapshot_fingerprint(self.table, self.keys)

    @property
    def inputs(self) -> Mapping[str, str]:
        """The tables that it was made from, and their fingerprints."""
        return cast("dict[str, str]", self.lineage.get("inputs", {}))

    @property
    def models(self) -> Mapping[str, str]:
        """The digest of each model that it was made with, by role."""
        return cast("dict[str, str]", self.lineage.get("models", {}))

    @property
    def totals(self) -> ShardStats:
        """The statistics of all shards added up."""
        return add_stats(shard.stats for shard in self.shards)

    def to_bytes(self) -> bytes:
        """The snapshot as Parquet, the same bytes for the same snapshot."""
        shards = [(shard.key, asdict(shard.stats), shard.members) for shard in self.shards]
        rows = pa.table([*zip(*shards, strict=True)], SHARDS) if shards else SHARDS.empty_table()
        return encode_parquet(rows, to_json(replace(self, shards=())))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Snapshot:
        """Read :meth:`to_bytes`, or the JSON that older versions wrote. Raises LakeError."""
        if not data.startswith(b"PAR1"):
            return from_json(cls, data, name, derived=("fingerprint", "totals"))
        check_shard(data, name)
        head = from_json(cls, read_about(pa.BufferReader(data), name), name)
        rows = read_rows(pa.BufferReader(data), name)
        if not rows.schema.equals(SHARDS):
            raise LakeError(f"{name} is not a snapshot: its columns are {rows.schema.names}; {CURE}")
        keys, stats = rows["key"].to_pylist(), rows["stats"].to_pylist()
        told = [ShardStats(**{**one, "reasons": dict(one["reasons"])}) for one in stats]
        members = [] if not rows.num_rows else [each.values for each in rows["members"]]
        return replace(head, shards=tuple(map(ShardEntry, keys, told, members)))


def add_stats(stats: Iterable[ShardStats]) -> ShardStats:
    """The sum of several shards' statistics."""
    items = list(stats)
    reasons: Counter[str] = Counter()
    for item in items:
        reasons.update(item.reasons)
    return ShardStats(
        rows_in=sum(s.rows_in for s in items),
        rows_out=sum(s.rows_out for s in items),
        rejected=sum(s.rejected for s in items),
        upstream=sum(s.upstream for s in items),
        reasons=dict(sorted(reasons.items())),
        seconds=round(sum(s.seconds for s in items), 3),
        audio_seconds=round(sum(s.audio_seconds for s in items), 3),
    )


class KeepConfig(FrozenConfig):
    """How long garbage collection spares the snapshots that a recipe used before: while one of the two says so."""

    snapshots: int = Field(7, ge=1, description="So many of the latest snapshots of each table, that in use included.")
    days: float = Field(0.0, ge=0, description="And those that were in use within so many days.")


@dataclass(frozen=True)
class Past:
    """A snapshot that a recipe used from `since` to `until`, in seconds since the epoch."""

    __pydantic_config__ = STRICT

    target: Digest
    since: float
    until: float


def ref_path(recipe: str, name: str) -> str:
    """Where a ref lies in the store."""
    return f"refs/{recipe}/{name}.json"


@dataclass(frozen=True)
class Ref:
    """What a recipe uses under one stage name. `target` is a snapshot fingerprint or an artifact key.

    `past` are snapshots that it used before, the latest first, of which `snapshots` and `days` are to be kept.
    """

    __pydantic_config__ = STRICT

    recipe: FileName
    name: FileName
    kind: Literal["table", "artifact"]
    target: Digest
    identity: Digest
    updated: Annotated[float, Field(ge=0, le=1e11)]
    snapshots: int = 1
    days: float = 0.0
    past: tuple[Past, ...] = ()

    @property
    def place(self) -> str:
        """Where it lies in the store."""
        return ref_path(self.recipe, self.name)

    def kept(self, now: float) -> tuple[Past, ...]:
        """Those of `past` that are still to be kept; see :class:`KeepConfig`."""
        latest = [*self.past[: self.snapshots - 1]]
        return (*latest, *(one for one in self.past[len(latest) :] if now - one.until < self.days * 86_400))

    def followed(self, target: str, identity: str, now: float, keep: KeepConfig | None) -> Ref:
        """This ref with another target, and what is left of the past."""
        keep = keep or KeepConfig(snapshots=1)
        past = [one for one in self.past if one.target != target]
        if target != self.target and self.kind == "table":
            past.insert(0, Past(self.target, self.updated, now))
        ref = Ref(self.recipe, self.name, self.kind, target, identity, now, keep.snapshots, keep.days, tuple(past))
        return replace(ref, past=ref.kept(now))
