"""The good segments of a recipe's recordings, each with its words, text and speech units, as a lake holds them."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from spiritlm_core.errors import LakeError
from spiritlm_core.intake.rights import FIELDS, NOTHING, UNKNOWN, Rights, rights_in
from spiritlm_core.lake.forgotten import refuse_forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.shard import reason_group
from spiritlm_core.lake.snapshot import Snapshot

Segment = dict[str, Any]  # a row of `Segments.schema`
TABLES = ("audio", "speakers", "selection", "words", "quality", "units")
"""Tables of which each has a row for every row of `audio`; a later one counts where two have a column."""
_NEEDED = ("audio", "selection")  # the others are written as far as a recipe has made them

_LEFT_OUT = frozenset({"word_times", "recording_text", "source_uri", "fingerprint", "reject_stage", "reject_reason"})
"""What the words have already, where the recording lay on this machine, and the account of what is not exported."""


@dataclass
class Counts:
    """What one split of an export holds."""

    segments: int = 0
    seconds: float = 0.0
    words: int = 0
    speakers: set[str] = field(default_factory=set)
    languages: set[str] = field(default_factory=set)
    licences: Counter[str] = field(default_factory=Counter)
    """Seconds of each; empty where nothing is said of any."""

    def add(self, segment: Segment) -> None:
        """Count one segment."""
        self.segments += 1
        self.seconds += segment["duration"]
        self.words += len(segment.get("words") or ())
        self.speakers |= {segment["speaker"]} - {None}
        self.languages |= {segment["language"]} - {None}
        if "licence" in segment:
            self.licences[segment["licence"] or UNKNOWN] += segment["duration"]

    def figures(self) -> dict[str, Any]:
        """The numbers as JSON."""
        hours = round(self.seconds / 3600, 4)
        return {"segments": self.segments, "hours": hours, "words": self.words, "speakers": len(self.speakers)}


@dataclass(frozen=True)
class Segments:
    """The table `audio` of a recipe, and beside it, row by row, what else it has made of it."""

    recipe: str
    lake: Lake
    tables: dict[str, Snapshot]
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows that are left out because a stage gave them up, by stage and reason; of the last `rows`."""

    @classmethod
    def open(cls, lake: Lake, recipe: str, asked: str, stages: Container[str] = TABLES) -> Self:
        """Find the tables of a recipe that has these `stages`, and which the user calls `asked`.

        Raises LakeError: it has no `audio`, or not yet the `selection` that says what of it stays; or it still holds
        what was forgotten.
        """
        how = f"`spiritlm run {asked} --until corpus --lake {lake.uri}` makes it"
        refs = {table: lake.read_ref(recipe, table) for table in TABLES if table in stages}
        for table in _NEEDED:
            if table in refs and refs[table] is None:
                raise LakeError(f"{lake.uri} has no table `{table}` of recipe {recipe!r} yet: {how}")
        tables = {name: lake.read_snapshot(name, ref.target) for name, ref in refs.items() if ref}
        refuse_forgotten(lake, (snapshot.fingerprint for snapshot in tables.values()), how)
        return cls(recipe, lake, tables)

    @cached_property
    def rights(self) -> dict[str, Rights]:
        """Licence, consent and its end of the recordings of which anything is said."""
        return rights_in(self.tables["audio"].lineage)

    @property
    def schema(self) -> pa.Schema:
        """Columns of `rows`: those of `audio`, then of the other tables; `audio` itself is FLAC, 16 kHz mono."""
        first = {name: next(self.lake.view(snapshot).shards(), None) for name, snapshot in self.tables.items()}
        columns = {
            _named(table, column.name): column for table, shard in first.items() if shard for column in shard.schema
        }
        said = [pa.field(name, pa.string()) for name in FIELDS] if self.rights else []
        return pa.schema([*(column.with_name(name) for name, column in columns.items() if name), *said])

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
            named = zip(self.tables, rows, strict=True)
            values = {_named(table, name): value for table, row in named for name, value in row.items()}
            said = asdict(self.rights.get(values["recording_id"], NOTHING)) if self.rights else {}
            yield {name: value for name, value in values.items() if name} | said

    def _apart(self) -> LakeError:
        names = ", ".join(f"`{name}`" for name in self.tables)
        return LakeError(f"{names} of {self.recipe!r} in {self.lake.uri} do not belong together: run the recipe again")


def _named(table: str, column: str) -> str:
    """How a column is called in an export: what was measured is told from what is given; "" if it is left out."""
    if column in _LEFT_OUT or (table != "audio" and column in ("utterance_id", "duration")):
        return ""
    return f"quality_{column}" if table == "quality" else column
