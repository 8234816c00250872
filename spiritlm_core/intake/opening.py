"""Opening what a source lists, by URI: files, objects, web addresses, prompts, recordings in rows of Parquet files."""

import bz2
import gzip
import io
import zlib
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.debian import prompt_path
from spiritlm_core.intake.embedded import open_row
from spiritlm_core.intake.files import PACKED, bucket_of, is_web, local_path, printable
from spiritlm_core.intake.web import open_web

_SUFFIXES = {
    "text": (".txt", ".text", ".md"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
}


def open_uri(uri: str) -> BinaryIO:
    """Open any source URI for reading; it can seek."""
    if uri.startswith("s3://"):
        store, key = bucket_of(uri)
        return store.open(key)
    if uri.startswith("prompts://"):
        return prompt_path(uri).open("rb")
    if is_web(uri):
        return open_web(uri)
    if uri.startswith("parquet+"):
        return open_row(uri, open_uri)
    return open(local_path(uri), "rb")  # noqa: PTH123 - a path with surrogate escapes


def read_uri(uri: str) -> bytes:
    """All bytes of a source URI."""
    with open_uri(uri) as file:
        return file.read()


def read_head(uri: str, count: int) -> bytes:
    """The first `count` bytes of a source URI."""
    with open_uri(uri) as file:
        return file.read(count)


def open_plain(uri: str, name: str) -> BinaryIO:
    """Open a source URI for reading, decompressed if `name` ends in one of `PACKED`."""
    return _unpacked(open_uri(uri), name)


def read_plain(uri: str) -> bytes:
    """All bytes of a source URI, decompressed if its name ends in one of `PACKED`.

    Raises SourceError: it is not compressed that way, or damaged.
    """
    data = io.BytesIO(read_uri(uri))
    try:
        return _unpacked(data, uri).read()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceError(f"{printable(local_path(uri))}: cannot be decompressed: {error}") from error


def format_of(name: str) -> str | None:
    """The format that a file's name stands for, or None."""
    name = name.lower()
    stem = name.rpartition(".")[0] if name.endswith(PACKED) else name
    return next((kind for kind, suffixes in _SUFFIXES.items() if stem.endswith(suffixes)), None)


def _unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".gz":
        return gzip.open(raw, "rb")  # type: ignore[return-value]
    if suffix == ".bz2":
        return bz2.open(raw, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"))
    return io.BufferedReader(raw)  # type: ignore[type-var] # files of S3 know no readline(size)
