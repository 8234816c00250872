"""Reading the rows of a table, shard by shard, without knowing where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.errors import LakeError


class Loader(Protocol):
    """Reads one shard."""

    def __call__(self, columns: Sequence[str] | None) -> pa.Table:
        """The shard's rows, or only `columns` of them."""

    def columns(self) -> list[str]:
        """Names of the shard's columns."""

    def digest(self) -> str:
        """Names the shard's content: its key in a lake, else a sha256."""


@dataclass(frozen=True)
class TableView:
    """A read-only table made of shards. Cheap to copy and to send to another process."""

    loaders: tuple[Loader, ...]
    rows: int

    @classmethod
    def of(cls, *tables: pa.Table) -> TableView:
        """A view over tables in memory (tests, notebooks)."""
        return cls(tuple(_InMemory(table) for table in tables), sum(table.num_rows for table in tables))

    @classmethod
    def of_files(cls, paths: Sequence[Path]) -> TableView:
        """A view over Parquet files. Raises OSError or pyarrow.ArrowException."""
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
        return cls(tuple(_InFile(path) for path in paths), rows)

    def __len__(self) -> int:
        return len(self.loaders)

    def shards(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the shards one at a time, always in the same order, reading only `columns`."""
        for load in self.loaders:
            yield load(columns)

    def has(self, column: str) -> bool:
        """Whether the rows have a column that not every recipe makes; all shards of a table have the same ones."""
        return any(column in load.columns() for load in self.loaders[:1])

    def digests(self) -> list[str]:
        """Names of the content of all shards, sorted; reads whole files where they carry no key of a lake."""
        return sorted(load.digest() for load in self.loaders)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in one table; for small columns only."""
        return pa.concat_tables(list(self.shards(columns)))


@dataclass(frozen=True)
class _InMemory:
    table: pa.Table

    def __call__(self, columns: Sequence[str] | None) -> pa.Table:
        return self.table if columns is None else self.table.select(list(columns))

    def columns(self) -> list[str]:
        return list(self.table.column_names)

    def digest(self) -> str:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as stream:
            stream.write_table(self.table)
        return hashlib.sha256(sink.getvalue()).hexdigest()


@dataclass(frozen=True)
class _InFile:
    path: Path

    def __call__(self, columns: Sequence[str] | None) -> pa.Table:
        return pq.read_table(self.path, columns=None if columns is None else list(columns))

    def columns(self) -> list[str]:
        return list(pq.read_schema(self.path).names)

    def digest(self) -> str:
        from spiritlm_core.lake.shard import read_footer

        with self.path.open("rb") as stream:
            try:
                return read_footer(stream, str(self.path)).key
            except LakeError:  # a table that another program wrote
                stream.seek(0)
                return hashlib.file_digest(stream, "sha256").hexdigest()
