"""Text files cut into pieces, each identified by its content, so that a corpus that grows keeps its shards.

A piece is a whole plain text file, a stretch of lines, or some row groups of a Parquet file. A file that grows
at its end keeps the pieces it had.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
from pyarrow import parquet

from spiritlm_core.errors import SourceError, is_machine_error
from spiritlm_core.intake.config import ShardingConfig, TextSource
from spiritlm_core.intake.files import File, printable
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import digest
from spiritlm_core.intake.listing import Say
from spiritlm_core.intake.opening import format_of, open_plain, open_uri
from spiritlm_core.intake.statcache import StatCache, sha256_of, stat_cache
from spiritlm_core.intake.text_files import list_files
from spiritlm_core.lake.fingerprint import digest as fingerprint
from spiritlm_core.lake.lake import Lake

SHARDING = ShardingConfig(shard_items=10_000, shard_bytes=64 * 2**20)  # small text files share a shard
LARGEST_FILE = 2**30  # bytes of one document; a Parquet string ends at two of these
PIECES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("format", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("start", pa.int64()),  # byte after decompression; Parquet: row group
        pa.field("end", pa.int64()),
        pa.field("place", pa.int64()),  # number of the first line or row, from 1
        pa.field("size", pa.int64()),  # bytes
        pa.field("source", pa.string()),  # the TextSource as JSON
        pa.field("error", pa.string()),  # why it cannot be read
    ]
)
"""Input rows of :class:`spiritlm_core.tokens.text_stage.DocumentsStage`."""


@dataclass(frozen=True)
class Piece:
    """Some documents of one file; see `PIECES`. `key` covers what its rows are made from, never a path or a time."""

    key: str
    name: str
    source_uri: str
    source: str
    format: str | None = None
    sha256: str | None = None
    start: int = 0
    end: int = 0
    place: int = 1
    size: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Cut:
    """Where a piece lies in its file, and the sha256 of its content."""

    start: int
    end: int
    place: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Texts:
    """The text documents of a recipe."""

    schema: ClassVar[pa.Schema] = PIECES
    sources: Sequence[TextSource]

    @property
    def sharding(self) -> ShardingConfig:
        """Small text files share a shard."""
        return SHARDING

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the texts are."""
        return {"sources": [source.model_dump(mode="json") for source in self.sources]}

    def items(self, lake: Lake, say: Say) -> pa.Table:
        """Pieces of text files, each once. Raises SourceError."""
        pieces: list[Piece] = []
        for source in self.sources:
            with stat_cache(lake, f"cache/texts/{fingerprint(source.model_dump(mode='json'))[:32]}.parquet") as cache:
                pieces += list_pieces(source, cache)
        if not pieces:
            shown = ", ".join(source.path for source in self.sources)
            raise SourceError(f"no text documents found in {shown}: name .txt, .jsonl or .parquet files under `texts`")
        return items_table(collect(pieces), PIECES)

    def costs(self, items: pa.Table) -> pa.ChunkedArray:
        """Bytes to work through."""
        return items["size"]


def list_pieces(source: TextSource, cache: StatCache) -> list[Piece]:
    """Everything one source holds, good or bad.

    Args:
        source: where to look.
        cache: knows the pieces of files that did not change; is updated.

    Raises:
        SourceError: there is no such file or folder, or a Parquet file has no such column.
    """
    files = list_files(source)
    with ThreadPoolExecutor(8) as pool:  # waiting for S3, mostly
        pieces_of_files = pool.map(lambda file: _pieces(file, source, cache), files)
        return [piece for pieces in pieces_of_files for piece in pieces]


def collect(pieces: Iterable[Piece]) -> list[Piece]:
    """Each content once; another piece with the same becomes one with an `error`."""
    first: dict[str, Piece] = {}
    distinct = []
    for piece in sorted(pieces, key=lambda one: (one.name, one.start, one.end, one.key, one.source_uri)):
        same = first.setdefault(piece.key, piece)
        while same is not piece and piece.key in first:
            error = piece.error or f"duplicate of {same.name}"
            piece = dataclasses.replace(piece, key=digest("again", piece.key, piece.name), error=error)  # noqa: PLW2901
        first[piece.key] = piece
        distinct.append(piece)
    return distinct


def _pieces(file: File, source: TextSource, cache: StatCache) -> list[Piece]:
    kind = source.format or format_of(file.path)
    said = source.model_copy(update={"format": kind}).model_dump_json(
        exclude={"path", "piece_bytes", "follow_symlinks"}
    )
    name, uri = printable(file.path), file.uri
    try:
        cuts = _cuts(file, source, str(kind), cache)
    except _UnreadableError as error:
        return [Piece(digest("bad text", name, str(error)), name, uri, said, kind, error=str(error))]
    return [Piece(digest("text", cut.sha256, said), name, uri, said, kind, **dataclasses.asdict(cut)) for cut in cuts]


class _UnreadableError(Exception):
    """A file of which nothing can be used."""


def _cuts(file: File, source: TextSource, kind: str, cache: StatCache) -> list[Cut]:
    """The pieces of one file; from the cache if it did not change."""
    if file.error:
        raise _UnreadableError(file.error)
    if known := cache.get(file):
        return [Cut(*cut) for cut in json.loads(known)]
    read_at = time.time()
    try:
        cuts = list(_parquet_cuts(file, source) if kind == "parquet" else _line_cuts(file, source, kind))
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        if is_machine_error(error):
            raise
        raise _UnreadableError(f"cannot be read as {kind}: {' '.join(str(error).split())}"[:300]) from error
    cache.put(file, json.dumps([dataclasses.astuple(cut) for cut in cuts]), read_at)
    return cuts


def _line_cuts(file: File, source: TextSource, kind: str) -> Iterator[Cut]:
    """A whole file, or stretches that end with a line (JSON lines) or a blank line (paragraphs)."""
    start, place = 0, 1
    with open_plain(file.uri, file.path) as stream:
        if kind == "text" and source.documents == "file":
            yield _whole(stream)
            return
        while data := _stretch(stream, source.piece_bytes, paragraphs=kind == "text"):
            yield Cut(start, start + len(data), place, len(data), hashlib.sha256(data).hexdigest())
            start, place = start + len(data), place + data.count(b"\n")
    if not start:
        yield Cut(0, 0, 1, 0, hashlib.sha256().hexdigest())


def _whole(stream: BinaryIO) -> Cut:
    total, size = hashlib.sha256(), 0
    while chunk := stream.read(2**20):
        total.update(chunk)
        size += len(chunk)
        _check_size(size)
    return Cut(0, size, 1, size, total.hexdigest())


def _stretch(stream: BinaryIO, size: int, *, paragraphs: bool) -> bytes:
    """The next `size` bytes and what is missing of the last document; nothing at the end."""
    parts = [stream.read(size)]
    total = len(parts[0])
    if total < size:
        return parts[0]
    if paragraphs or not parts[0].endswith(b"\n"):
        parts.append(stream.readline(LARGEST_FILE))
    while paragraphs and parts[-1].strip():
        parts.append(stream.readline(LARGEST_FILE))
        total += len(parts[-1])
        _check_size(total)
    _check_size(sum(map(len, parts)))
    return b"".join(parts)


def _check_size(size: int) -> None:
    if size >= LARGEST_FILE:
        raise _UnreadableError(f"too large: a document, or a stretch without an end of one, of {size} bytes or more")


def _parquet_cuts(file: File, source: TextSource) -> Iterator[Cut]:
    """Row groups together up to `piece_bytes` of text."""
    sha256 = sha256_of(file.uri)
    with open_uri(file.uri) as stream:
        table = parquet.ParquetFile(stream)
        sizes = [_column_size(table.metadata.row_group(i), source.field) for i in range(table.num_row_groups)]
        rows = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
        check_column(table.schema_arrow, source.field, printable(file.path))
    first, size = 0, 0
    for group in range(len(sizes)):
        size += sizes[group]
        if size >= source.piece_bytes or group + 1 == len(sizes):
            key = digest("row groups", sha256, first, group + 1)
            yield Cut(first, group + 1, 1 + sum(rows[:first]), size, key)
            first, size = group + 1, 0
    if not sizes:
        yield Cut(0, 0, 1, 0, digest("row groups", sha256, 0, 0))


def _column_size(group: object, name: str) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]  # type: ignore[attr-defined]
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == name)


def check_column(schema: pa.Schema, name: str, file: str) -> None:
    """Raises SourceError if there is no text column of that name."""
    if name not in schema.names:
        raise SourceError(
            f"texts {file}: there is no column {name!r}, only {', '.join(schema.names)}; set `field` of this source"
        )
    kind = schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise SourceError(f"texts {file}: column {name!r} holds {kind}, not text; set `field` of this source")
