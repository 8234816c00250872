"""Recordings that lie in the rows of a Parquet file, as Hugging Face's data sets keep them."""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import parquet

from spiritlm_core.audio.files import File, open_uri, stat_file

_LOCK = threading.Lock()  # the rows of a group are asked for by several threads, and read once


def row_uri(uri: str, column: str, row: int) -> str:
    """The URI of the recording in `row` (from 0) of `column`."""
    return f"parquet+{uri}#{quote(column, safe='')}/{row}"


def embedded_columns(schema: pa.Schema) -> list[str]:
    """Columns that may hold recordings: bytes, or structures of bytes and path."""
    return [field.name for field in schema if _bytes_of(field.type)]


def has_bytes(group: Any, column: str) -> bool:
    """Whether a row group (its metadata) holds any bytes in `column`, rather than paths alone."""
    chunks = (group.column(number) for number in range(group.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema in (column, f"{column}.bytes"))
    told = chunk.statistics
    return told is None or not told.has_null_count or told.null_count < group.num_rows


def open_row(uri: str) -> BinaryIO:
    """The recording that `row_uri` names. Raises OSError if the row has none."""
    file, _, place = uri.removeprefix("parquet+").rpartition("#")
    column, _, row = place.rpartition("/")
    with _LOCK:
        first, values = _group(file, stat_file(file), unquote(column), int(row))
    value = values[int(row) - first].as_py()
    if not value:
        raise OSError(f"row {int(row) + 1} holds no bytes in column {unquote(column)!r}")
    return io.BytesIO(value)


def _group(uri: str, version: File, column: str, row: int) -> tuple[int, pa.Array]:
    """The first row, and the bytes, of the row group that holds `row`."""
    ends = _ends(uri, version)
    number = next((number for number, end in enumerate(ends) if row < end), None)
    if number is None:
        raise OSError(f"there is no row {row + 1}, only {ends[-1] if ends else 0}")
    return (ends[number - 1] if number else 0), _values(uri, version, column, number)


@lru_cache(maxsize=64)
def _ends(uri: str, version: File) -> list[int]:
    del version
    with open_uri(uri) as stream:
        found, end = parquet.ParquetFile(stream).metadata, 0
    return [end := end + found.row_group(number).num_rows for number in range(found.num_row_groups)]


@lru_cache(maxsize=2)
def _values(uri: str, version: File, column: str, group: int) -> pa.ChunkedArray:
    del version
    with open_uri(uri) as stream:
        file = parquet.ParquetFile(stream)
        kind = file.schema_arrow.field(column).type
        values = file.read_row_group(group, columns=[f"{column}.bytes" if pa.types.is_struct(kind) else column])[column]
    return pa.chunked_array([chunk.field("bytes") for chunk in values.chunks]) if pa.types.is_struct(kind) else values


def _bytes_of(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.StructType) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
