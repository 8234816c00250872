"""Recordings in the rows of a Parquet file, as Hugging Face's data sets keep them; and files as libav containers."""

import io
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import parquet

from spiritlm_core.intake.files import File, stat_file


class Seekable(Protocol):
    """What libav needs of a file; its name it must not know, it would look around there."""

    def read(self, count: int = -1, /) -> bytes:
        """Up to `count` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to `offset`."""

    def tell(self) -> int:
        """Where it is."""


def open_container(file: Seekable, kind: str | None = None) -> Any:
    """The file as a libav container. What a playlist in it names is not opened: neither files nor addresses.

    Args:
        file: without a `name`.
        kind: libav's name of the format, where the content does not tell.
    """
    import av.logging

    av.logging.set_level(None)  # torchvision turns on what libav says of damage, which names no file
    return av.open(file, format=kind, metadata_errors="replace", options={"protocol_whitelist": "none"})


Open = Callable[[str], BinaryIO]
_FIRST_ROWS = 16
_LOCK = threading.Lock()  # the rows of a group are asked for by several threads, and read once


def row_uri(uri: str, column: str, row: int) -> str:
    """The URI of the recording in `row` (from 0) of `column`."""
    return f"parquet+{uri}#{quote(column, safe='')}/{row}"


def embedded_columns(schema: pa.Schema) -> list[str]:
    """Columns that may hold recordings: bytes, or structures of bytes and path."""
    return [field.name for field in schema if _bytes_of(field.type)]


def has_bytes(table: Any, column: str) -> bool:
    """Whether a Parquet file holds bytes in `column`, rather than paths alone: its first rows tell.

    They are read because pyarrow ends the process where it finds damage in what a file says of its columns.
    """
    first = next(table.iter_batches(_FIRST_ROWS, columns=[_bytes_column(table, column)]), None)
    values = first.column(0).to_pylist() if first else []
    return any(value.get("bytes") if isinstance(value, dict) else value for value in values)


def open_row(uri: str, open_file: Open) -> BinaryIO:
    """The recording that `row_uri` names, in a file that `open_file` opens. Raises OSError if the row has none."""
    file, _, place = uri.removeprefix("parquet+").rpartition("#")
    column, _, row = place.rpartition("/")
    with _LOCK:
        first, values = _group(stat_file(file), unquote(column), int(row), open_file)
    value = values[int(row) - first].as_py()
    if not value:
        raise OSError(f"row {int(row) + 1} holds no bytes in column {unquote(column)!r}")
    return io.BytesIO(value)


def _group(file: File, column: str, row: int, open_file: Open) -> tuple[int, pa.Array]:
    """The first row, and the bytes, of the row group that holds `row`."""
    ends = _ends(file, open_file)
    number = next((number for number, end in enumerate(ends) if row < end), None)
    if number is None:
        raise OSError(f"there is no row {row + 1}, only {ends[-1] if ends else 0}")
    return (ends[number - 1] if number else 0), _values(file, column, number, open_file)


@lru_cache(maxsize=64)
def _ends(file: File, open_file: Open) -> list[int]:
    with open_file(file.uri) as stream:
        metadata, end = parquet.ParquetFile(stream).metadata, 0
    return [end := end + metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


@lru_cache(maxsize=2)
def _values(file: File, column: str, group: int, open_file: Open) -> pa.ChunkedArray:
    with open_file(file.uri) as stream:
        table = parquet.ParquetFile(stream)
        values = table.read_row_group(group, columns=[_bytes_column(table, column)])[column]
    inside = pa.types.is_struct(values.type)
    return pa.chunked_array([chunk.field("bytes") for chunk in values.chunks]) if inside else values


def _bytes_column(table: Any, column: str) -> str:
    return f"{column}.bytes" if pa.types.is_struct(table.schema_arrow.field(column).type) else column


def _bytes_of(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.StructType) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
