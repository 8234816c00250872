"""The rows of a snapshot, asked by DuckDB, which reads of the shards only the columns that a question needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from spiritlm_core.errors import LakeError
from spiritlm_core.explore.conditions import Column, where
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.store.objects import Store
from spiritlm_core.store.uri import open_store

_BINS, _MOST_VALUES = 30, 20
_SETTINGS = "SET threads = 2; SET memory_limit = '400MB'; SET parquet_metadata_cache = true; SET temp_directory = ''"


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
    """A snapshot that can be asked. Only names of shards are held, and what an answer takes.

    Attributes:
        columns: what can be asked about, by name, in the order in which they are shown; binary ones are left out.
    """

    def __init__(self, lake: Lake, snapshot: Snapshot) -> None:
        """Raises LakeError if a shard of the snapshot is missing or damaged."""
        self.table, self.keys, self.totals = snapshot.table, snapshot.keys, snapshot.totals
        self._lake = lake
        self._numbers = {key: number for number, key in enumerate(self.keys)}
        described = self._ask("DESCRIBE SELECT * FROM {rows}") if self.keys else []
        kinds = {name: str(kind) for name, kind, *_ in described if name not in ("filename", "file_row_number")}
        self._names = list(kinds)
        seen = {name: Column(name, kind) for name, kind in kinds.items() if kind != "BLOB"}
        self.columns = dict(sorted(seen.items(), key=lambda pair: _weight(pair[0])))

    def __len__(self) -> int:
        return self.totals.rows_in + self.totals.upstream

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
        order = f"ORDER BY {self.columns[sort].sql} {'DESC' if down else 'ASC'} NULLS LAST" if sort else ""
        shown = ", ".join(f"{column.sql} AS {_quoted(name)}" for name, column in self.columns.items())
        question = f"SELECT filename, file_row_number, {shown} FROM {{rows}} WHERE {sql} {order} LIMIT ? OFFSET ?"
        rows = self._ask(question, [*values, count, start])
        return [self._place(row) for row in rows], [list(row[2:]) for row in rows]

    def find(self, utterance_id: str) -> Place | None:
        """Where the row of an utterance lies."""
        question = "SELECT filename, file_row_number FROM {rows} WHERE utterance_id = ? LIMIT 1"
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
        """A whole row, its sound as well, without the others of its shard. Raises LakeError if that is damaged."""
        question = f"SELECT {', '.join(map(_quoted, self._names))} FROM {{rows}} WHERE file_row_number = ?"
        (row,) = self._ask(question, [place.row], [self.keys[place.shard]])
        return dict(zip(self._names, row, strict=True))

    def _ask(
        self, question: str, values: Sequence[Any] = (), keys: Sequence[str] | None = None
    ) -> list[tuple[Any, ...]]:
        files = [self._lake.store.child(shard_path(self.table, key)) for key in keys or self.keys]
        return ask(self._lake.store, question, {"rows": files}, values)

    def _place(self, row: Sequence[Any]) -> Place:
        return Place(self._numbers[PurePosixPath(row[0]).stem], int(row[1]))


def ask(store: Store, question: str, files: dict[str, list[str]], values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The answer of DuckDB to SQL in which ``{name}`` stands for the shards `files[name]`, and ``?`` for `values`.

    Raises LakeError: a shard is missing or damaged, or the answer takes too much memory.
    """
    import duckdb

    listed = {
        name: f"read_parquet([{', '.join(map(_literal, paths))}], filename = true, file_row_number = true)"
        for name, paths in files.items()
    }
    for name, sql in listed.items():
        question = question.replace(f"{{{name}}}", sql)
    try:
        with _connection(store.uri).cursor() as cursor:
            answer: list[tuple[Any, ...]] = cursor.execute(question, list(values)).fetchall()
    except duckdb.Error as error:
        raise LakeError(f"the shards of {store.uri} cannot be asked: {str(error).splitlines()[0]}") from error
    return answer


@cache
def _connection(uri: str) -> Any:
    """One data base in memory for a store, which keeps the footers of its shards."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(_SETTINGS)
    if (files := open_store(uri).filesystem) is not None:
        connection.register_filesystem(files)
    return connection


def _weight(name: str) -> int:
    """What people read first stands first, and names and digests last."""
    return 0 if name == "text" else 2 if name.endswith(("_id", "_uri", "_sha256")) else 1


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
