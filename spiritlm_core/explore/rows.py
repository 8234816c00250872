"""The rows of a snapshot, which can be asked: in its shards, or in a copy of their columns."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from spiritlm_core.explore.conditions import Column, where
from spiritlm_core.explore.duck import Copy, ask, literal, quoted
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.snapshot import Snapshot

_BINS, _MOST_VALUES = 30, 20
_PLACE = "filename, file_row_number"  # rows that are alike are sorted by it, so that each is on one page


@dataclass(frozen=True)
class Place:
    """Where a row lies: the number of its shard in the snapshot, and its number in the shard."""

    shard: int
    row: int


@dataclass(frozen=True)
class Histogram:
    """How often what occurs: `edges` are the bounds of equal classes of a number, `values` the most frequent texts."""

    column: str
    counts: list[int]
    edges: list[float]
    values: list[str]


class Rows:
    """A snapshot that can be asked. Rows of forgotten recordings are not there.

    Attributes:
        columns: what can be asked about, by name, in the order in which they are shown; lists count as their lengths,
            and binary ones are left out.
        forgotten: ``recording_id`` of what was taken back.
        shown: SQL that says whether a row is not forgotten.
    """

    def __init__(self, lake: Lake, snapshot: Snapshot, forgotten: Collection[str] = ()) -> None:
        """Raises LakeError if a shard of the snapshot is missing or damaged."""
        self.table, self.keys, self.totals = snapshot.table, snapshot.keys, snapshot.totals
        self.forgotten = forgotten
        self._lake = lake
        self._numbers = {key: number for number, key in enumerate(self.keys)}
        described = self._read("DESCRIBE SELECT * FROM {shards}")
        kinds = {name: str(kind) for name, kind, *_ in described if name not in ("filename", "file_row_number")}
        self._names = list(kinds)
        self.shown = _not_of(forgotten, self._names)
        seen = {name: Column(name, _seen(kind)) for name, kind in kinds.items() if kind != "BLOB"}
        self.columns = dict(sorted(seen.items(), key=lambda pair: _weight(pair[0])))
        values = (f"len({quoted(n)}) AS {quoted(n)}" if kinds[n].endswith("[]") else quoted(n) for n in self.columns)
        self._rows = f"SELECT {_PLACE}, {', '.join(values)} FROM {{shards}} WHERE {self.shown}"
        self._copy = self._new_copy()
        self.hidden = self._count_hidden() if forgotten else 0

    def __len__(self) -> int:
        return self.totals.rows_in + self.totals.upstream - self.hidden

    def gather(self) -> None:
        """Copy what can be asked about into memory, in the background; until then the shards are asked."""
        self._copy.start()

    def gathered(self) -> bool:
        """Wait for the copy, and say whether there is one: a large table has none."""
        return self._copy.wait()

    def release(self) -> None:
        """Give up the copy."""
        self._copy.drop()
        self._copy = self._new_copy()

    def count(self, conditions: str = "") -> int:
        """Rows for which `conditions` hold. Raises SpiritLMError if they cannot be read."""
        sql, values = where(conditions, self.columns)
        return (
            len(self) if sql == "true" else int(self._ask(f"SELECT count(*) FROM {{rows}} WHERE {sql}", values)[0][0])
        )

    def page(
        self, conditions: str = "", sort: str | None = None, *, down: bool = False, start: int = 0, count: int = 50
    ) -> tuple[list[Place], list[list[Any]]]:
        """Places and values of the rows `start` to `start + count`, in the order of the lake or of a column.

        Raises SpiritLMError: the conditions cannot be read.
        """
        sql, values = where(conditions, self.columns)
        order = f"ORDER BY {self.columns[sort].sql} {'DESC' if down else 'ASC'} NULLS LAST, {_PLACE}" if sort else ""
        shown = ", ".join(f"{column.sql} AS {quoted(name)}" for name, column in self.columns.items())
        question = f"SELECT {_PLACE}, {shown} FROM {{rows}} WHERE {sql} {order} LIMIT ? OFFSET ?"
        rows = self._ask(question, [*values, count, start])
        return [self._place(row) for row in rows], [list(row[2:]) for row in rows]

    def find(self, utterance_id: str) -> Place | None:
        """Where the row of an utterance lies."""
        question = f"SELECT {_PLACE} FROM {{rows}} WHERE utterance_id = ? LIMIT 1"
        return next((self._place(row) for row in self._ask(question, [utterance_id])), None)

    def histogram(self, name: str, conditions: str = "") -> Histogram:
        """How the values of a column are spread over the rows for which `conditions` hold."""
        sql, values = where(conditions, self.columns)
        column = self.columns[name]
        chosen = f"SELECT {column.sql} AS v FROM {{rows}} WHERE {sql}"
        if not column.numeric:
            most = (
                f"SELECT v::VARCHAR, count(*) AS n FROM ({chosen}) GROUP BY 1 ORDER BY n DESC, 1 LIMIT {_MOST_VALUES}"
            )
            found = self._ask(most, values)
            return Histogram(name, [n for _, n in found], [], ["(empty)" if v is None else str(v) for v, _ in found])
        question = (
            f"WITH r AS MATERIALIZED (SELECT v::DOUBLE AS v FROM ({chosen}) WHERE isfinite(v::DOUBLE)), "
            f"b AS (SELECT min(v) AS low, max(v) AS high, (max(v) - min(v)) / {_BINS} AS width FROM r) "
            f"SELECT low, high, least(floor((v - low) / if(width > 0, width, 1)), {_BINS - 1})::INT AS bin, count(*) "
            "FROM r, b GROUP BY ALL"
        )
        answer = self._ask(question, values)
        if not answer:
            return Histogram(name, [], [], [])
        low, high, counts = answer[0][0], answer[0][1], {row[2]: row[3] for row in answer}
        width = (high - low) / _BINS or 1.0 / _BINS
        edges = [low + number * width for number in range(_BINS + 1)]
        return Histogram(name, [counts.get(number, 0) for number in range(_BINS)], edges, [])

    def read(self, place: Place) -> dict[str, Any]:
        """A whole row, its sound as well, without the others of its shard; of one that is not there, nothing.

        Raises LakeError: the shard is damaged.
        """
        question = (
            f"SELECT {', '.join(map(quoted, self._names))} FROM {{shards}} WHERE file_row_number = ? AND {self.shown}"
        )
        found = self._read(question, [place.row], [self.keys[place.shard]])
        return dict(zip(self._names, found[0], strict=True)) if found else {}

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to a question about ``{rows}``."""
        copy = self._copy
        if (answer := copy.ask(question, values)) is not None:
            return answer
        with copy.turn:
            return self._read(question.replace("{rows}", f"({self._rows})"), values)

    def _read(
        self, question: str, values: Sequence[Any] = (), keys: Sequence[str] | None = None
    ) -> list[tuple[Any, ...]]:
        return ask(self._lake.store, question, {"shards": self._files(self.keys if keys is None else keys)}, values)

    def _files(self, keys: Sequence[str]) -> list[str]:
        return [self._lake.store.child(shard_path(self.table, key)) for key in keys]

    def _new_copy(self) -> Copy:
        return Copy(self._lake.store, self._rows, self._files(self.keys))

    def _count_hidden(self) -> int:
        return int(self._read(f"SELECT count(*) FROM {{shards}} WHERE NOT ({self.shown})")[0][0])

    def _place(self, row: Sequence[Any]) -> Place:
        return Place(self._numbers[PurePosixPath(row[0]).stem], int(row[1]))


def _seen(kind: str) -> str:
    return "BIGINT" if kind.endswith("[]") else kind


def _not_of(recordings: Collection[str], columns: Collection[str]) -> str:
    """SQL that says whether a row is of none of these recordings; a segment is called after its recording."""
    of = "recording_id" if "recording_id" in columns else r"regexp_replace(utterance_id, '-\d+-\d+$', '')"
    known = "recording_id" in columns or "utterance_id" in columns
    return f"{of} NOT IN ({', '.join(map(literal, sorted(recordings)))})" if recordings and known else "true"


def _weight(name: str) -> int:
    """What people read first stands first, and names and digests last."""
    return 0 if name == "text" else 2 if name.endswith(("_id", "_uri", "_sha256")) else 1
