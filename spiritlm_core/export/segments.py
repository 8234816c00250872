"""The good segments of a recipe's recordings, each with its words, text and speech units, as a lake holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.shard import reason_group
from spiritlm_core.lake.snapshot import Snapshot

Segment = dict[str, Any]  # a row of `Segments.schema`
_LEFT_OUT = frozenset({"word_times", "recording_text", "source_uri", "reject_stage", "reject_reason"})
"""What the words have already, where the recording lay on this machine, and the account of what is not exported."""


@dataclass
class Counts:
    """What one split of an export holds."""

    segments: int = 0
    seconds: float = 0.0
    words: int = 0
    speakers: set[str] = field(default_factory=set)
    languages: set[str] = field(default_factory=set)

    def add(self, segment: Segment) -> None:
        """Count one segment."""
        self.segments += 1
        self.seconds += segment["duration"]
        self.words += len(segment.get("words") or ())
        self.speakers |= {segment["speaker"]} - {None}
        self.languages |= {segment["language"]} - {None}

    def figures(self) -> dict[str, Any]:
        """The numbers as JSON."""
        hours = round(self.seconds / 3600, 4)
        return {"segments": self.segments, "hours": hours, "words": self.words, "speakers": len(self.speakers)}


@dataclass(frozen=True)
class Segments:
    """The table `audio` of a recipe, and beside it, row by row, `words` and `units` as far as it has made them."""

    recipe: str
    lake: Lake
    tables: dict[str, Snapshot]
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows that are left out because a stage gave them up, by stage and reason; of the last `rows`."""

    @classmethod
    def open(cls, lake: Lake, recipe: str, asked: str) -> Self:
        """Find the tables of a recipe, which the user calls `asked`. Raises LakeError if it has none."""
        refs = [lake.read_ref(recipe, table) for table in ("audio", "words", "units")]
        tables = {ref.name: lake.read_snapshot(ref.name, ref.target) for ref in refs if ref}
        if "audio" not in tables:
            how = f"`spiritlm run {asked} --until corpus --lake {lake.uri}` makes it"
            raise LakeError(f"{lake.uri} has no table `audio` of recipe {recipe!r} yet: {how}")
        return cls(recipe, lake, tables)

    @property
    def schema(self) -> pa.Schema:
        """Columns of `rows`: those of `audio`, then of the other tables; `audio` itself is FLAC, 16 kHz mono."""
        first = [next(self.lake.view(snapshot).shards(), None) for snapshot in self.tables.values()]
        columns = {column.name: column for shard in first if shard for column in shard.schema}
        return pa.schema([column for name, column in columns.items() if name not in _LEFT_OUT])

    def rows(self) -> Iterator[Segment]:
        """Every segment that no stage gave up, in the order of the lake; one shard of each table is in memory.

        Raises LakeError: the tables were not made from one another, as after a run that was killed in between.
        """
        self.rejected.clear()
        views = [self.lake.view(snapshot) for snapshot in self.tables.values()]
        if len({len(view) for view in views}) > 1:
            raise self._apart()
        for shards in zip(*(view.shards() for view in views), strict=True):
            ids = shards[0].column("utterance_id")
            if any(not shard.column("utterance_id").equals(ids) for shard in shards[1:]):
                raise self._apart()
            yield from self._joined([shard.to_pylist() for shard in shards])

    def _joined(self, tables: Sequence[list[Segment]]) -> Iterator[Segment]:
        for rows in zip(*tables, strict=True):
            if given_up := next((row for row in rows if row["reject_stage"] is not None), None):
                self.rejected[f"{given_up['reject_stage']}: {reason_group(given_up['reject_reason'])}"] += 1
                continue
            known = [{name: value for name, value in row.items() if name not in _LEFT_OUT} for row in rows]
            yield {name: value for row in known for name, value in row.items()}

    def _apart(self) -> LakeError:
        names = ", ".join(f"`{name}`" for name in self.tables)
        return LakeError(f"{names} of {self.recipe!r} in {self.lake.uri} do not belong together: run the recipe again")
