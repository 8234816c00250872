"""Searching a folder for what must not be in it: names of files, their bytes, and what is packed inside them."""

from __future__ import annotations

import base64
import gzip
import html
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def holding(folder: Path, *needles: bytes) -> dict[str, list[bytes]]:
    """File → those of `needles` that are in its name, its bytes, or what these hold when unpacked."""
    wanted = [form for needle in needles for form in (needle, *_in_base64(needle))]
    found: dict[str, list[bytes]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hits = [needle for needle in wanted for text in _texts(path) if needle in text]
        if hits:
            found[path.relative_to(folder).as_posix()] = hits
    return found


def _in_base64(needle: bytes) -> Iterator[bytes]:
    """How base64 writes it, whatever stands before it: reports carry their sound so. Only of what is long enough."""
    if len(needle) >= 24:
        for shift in range(3):
            yield base64.b64encode(needle[shift:][: (len(needle) - shift) // 3 * 3])


def _texts(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield str(path).encode()
    yield data
    if path.suffix in (".html", ".json"):
        yield html.unescape(data.decode("utf-8", "replace")).encode()
    for unpack in (zlib.decompress, gzip.decompress):
        with suppress(zlib.error, OSError, EOFError):
            yield unpack(data)
    if data[:4] == b"PAR1":
        table = pq.read_table(pa.BufferReader(data))
        yield repr(table.schema.metadata).encode() + repr(pq.read_metadata(pa.BufferReader(data)).metadata).encode()
        for column in table.columns:
            yield from (value if isinstance(value, bytes) else repr(value).encode() for value in column.to_pylist())
