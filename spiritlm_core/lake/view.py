"""Reading the rows of a table, shard by shard, without knowing where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spiritlm_core.errors import LakeError


class Loader(Protocol):
    """Reads one shard."""

    def __call__(self, columns: Sequence[str] | None) -> pa.Table:
        """The shard's rows, or only `columns` of them."""

    def values(self) -> Mapping[str, int]:
        """How many values each column holds, without nulls, in lists each one; ``a.b`` is the field b of structs a."""

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

    def columns(self) -> list[str]:
        """Names of the columns, which all shards have; none where there is no shard."""
        return list(dict.fromkeys(name.split(".")[0] for load in self.loaders[:1] for name in load.values()))

    def digests(self) -> list[str]:
        """Names of the content of all shards, sorted; reads whole files where they carry no key of a lake."""
        return sorted(load.digest() for load in self.loaders)

    def good(self, columns: Sequence[str] | None = None, split: str | None = None) -> Iterator[pa.Table]:
        """The rows that no stage gave up, of one split if it is named, shard by shard."""
        needed = ("reject_stage",) if split is None else ("reject_stage", "split")
        for shard in self.shards(columns and [*dict.fromkeys((*columns, *needed))]):
            wanted = pc.is_null(shard["reject_stage"])
            yield shard.filter(wanted if split is None else pc.and_(wanted, pc.equal(shard["split"], split)))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in one table; for small columns only."""
        return pa.concat_tables(list(self.shards(columns)))


def count_values_of(rows: pa.Table) -> dict[str, int]:
    """How many values each column of rows in memory holds, see :class:`Loader`."""
    return dict(pair for name in rows.column_names for pair in _counts(name, rows[name]))


def _counts(name: str, values: pa.ChunkedArray) -> Iterator[tuple[str, int]]:
    if pa.types.is_list(values.type):
        yield from _counts(name, pc.list_flatten(values))
    elif pa.types.is_struct(values.type):
        for field in values.type.names:
            yield from _counts(f"{name}.{field}", pc.struct_field(values, field))
    else:
        yield name, len(values) - values.null_count


@dataclass(frozen=True)
class _InMemory:
    table: pa.Table

    def __call__(self, columns: Sequence[str] | None) -> pa.Table:
        return self.table if columns is None else self.table.select(list(columns))

    def values(self) -> dict[str, int]:
        return count_values_of(self.table)

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

    def values(self) -> dict[str, int]:
        from spiritlm_core.lake.shard import count_values

        with pa.OSFile(str(self.path)) as source:
            return count_values(source, str(self.path))

    def digest(self) -> str:
        from spiritlm_core.lake.shard import read_footer

        with self.path.open("rb") as stream:
            try:
                return read_footer(stream, str(self.path)).key
            except LakeError:  # a table that another program wrote
                stream.seek(0)
                return hashlib.file_digest(stream, "sha256").hexdigest()
