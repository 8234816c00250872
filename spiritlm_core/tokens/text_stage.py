"""The stages `documents` (text files, read and checked) and `text` (their tokens)."""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import parquet

from spiritlm_core.errors import Rejection, SourceError, is_machine_error
from spiritlm_core.intake.config import TextSource
from spiritlm_core.intake.draft import decode_text
from spiritlm_core.intake.item import digest
from spiritlm_core.intake.opening import open_plain, open_uri
from spiritlm_core.intake.pieces import Piece, check_column
from spiritlm_core.lake.schema import REJECT, Row, is_rejected, rejected, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.split import draw_split
from spiritlm_core.tokens.text import TextTokenizer

DOCUMENTS = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),  # from content and position
        pa.field("split", pa.string()),  # "train" or "held_out"
        pa.field("text", pa.string()),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_place", pa.int64()),  # line or row of the document in its file, from 1
        *REJECT,
    ]
)

TEXT = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("text", pa.string()),  # as it was tokenised: one space in front of each word
        pa.field("text_ids", pa.list_(pa.int32())),
        *REJECT,
    ]
)

Found = Iterator[tuple[int, str | Exception]]
"""Line or row number of each document, and its text or what is wrong with it."""


class DocumentsStage(TableStage):
    """``pieces`` (rows of :data:`spiritlm_core.intake.pieces.PIECES`) to ``documents``; needs no models.

    A row per document, a bad one rejected. The files are read where they are, and must still hold what was there
    when they were listed.
    """

    name: ClassVar[str] = "documents"
    about: ClassVar[str] = "text documents, read and checked"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("pieces"),)
    aligned: ClassVar[bool] = False
    schema: ClassVar[pa.Schema] = DOCUMENTS

    def process(self, *tables: pa.Table) -> pa.Table:
        """Rows of `DOCUMENTS` in the order of the pieces.

        Raises SourceError: a file changed since it was listed, or no row of it has the field.
        """
        (pieces,) = tables
        return table_of([row for values in pieces.to_pylist() for row in self._rows(Piece(**values))], DOCUMENTS)

    def _rows(self, piece: Piece) -> Iterator[Row]:
        source = TextSource.model_validate({"path": piece.name, **json.loads(piece.source)})
        if piece.error:
            yield rejected({"document_id": piece.key[:20], "source_uri": piece.source_uri}, self.name, piece.error)
            return
        for index, (place, text) in enumerate(_documents(piece, source)):
            base: Row = {
                "document_id": digest("document", piece.sha256, index)[:20],
                "source_uri": piece.source_uri,
                "source_place": place,
            }
            try:
                yield base | _checked(text, source)
            except Rejection as problem:
                yield rejected(base, self.name, problem)


def split_of(text: str, source: TextSource) -> str:
    """Either "train" or "held_out", drawn from the text itself: other documents never change it, copies agree."""
    return draw_split(text, source.split_salt, source.held_out_share)


def _checked(text: str | Exception, source: TextSource) -> Row:
    if isinstance(text, Exception):
        raise text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Rejection("half a surrogate pair: a character that no encoding has") from error
    if (words := len(text.split())) < source.min_words:
        raise Rejection(f"too short: {words} words, at least {source.min_words} are needed" if words else "empty text")
    return {"text": text, "split": split_of(text, source)}


def _documents(piece: Piece, source: TextSource) -> Found:
    if source.format == "parquet":
        yield from _parquet(piece, source)
        return
    data = _bytes(piece)
    if source.format == "jsonl":
        yield from _json_lines(data, piece, source)
    elif source.documents == "file":
        yield piece.place, _text(data, source, piece.name)
    else:
        yield from _paragraphs(data, piece, source)


def _bytes(piece: Piece) -> bytes:
    """The piece, still as it was listed: its hash is part of the shard's key."""
    try:
        with open_plain(piece.source_uri, piece.name) as stream:
            if stream.seekable():
                stream.seek(piece.start)
            else:
                _skip(stream, piece.start)
            data = stream.read(piece.size)
    except OSError as error:
        if is_machine_error(error):
            raise
        raise SourceError(
            f"{piece.source_uri} could be read when it was listed, not now or not here ({error}): run again, with "
            "the files at the same place on every machine"
        ) from error
    if hashlib.sha256(data).hexdigest() != piece.sha256:
        raise SourceError(f"{piece.source_uri} changed while it was read: run again")
    return data


def _skip(stream: Any, count: int) -> None:
    while count > 0 and (chunk := stream.read(min(count, 2**20))):
        count -= len(chunk)


def _text(data: bytes, source: TextSource, what: str) -> str | Exception:
    text, reason = decode_text(data, source.encoding, what)
    return Rejection(f"wrong encoding: {reason}") if reason else text


def _paragraphs(data: bytes, piece: Piece, source: TextSource) -> Found:
    held: list[bytes] = []
    first = piece.place
    for number, line in enumerate(data.split(b"\n"), piece.place):
        if line.strip():
            first = first if held else number
            held.append(line)
        elif held:
            yield first, _text(b"\n".join(held), source, f"line {first} of {piece.name}")
            held = []
    if held:
        yield first, _text(b"\n".join(held), source, f"line {first} of {piece.name}")


def _json_lines(data: bytes, piece: Piece, source: TextSource) -> Found:
    seen: set[str] = set()
    lines = texts = 0
    for number, line in enumerate(data.split(b"\n"), piece.place):
        if line.strip():
            text = _json_line(line, number, source, seen)
            lines, texts = lines + 1, texts + isinstance(text, str)
            yield number, text
    if seen and not texts and source.field not in seen:
        raise SourceError(
            f"texts {piece.name}: none of its {lines} lines has a field {source.field!r}, only "
            f"{', '.join(sorted(seen)[:10])}; set `field` of this source"
        )


def _json_line(line: bytes, number: int, source: TextSource, seen: set[str]) -> str | Exception:
    text = _text(line, source, f"line {number}")
    if isinstance(text, Exception):
        return text
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Rejection(f"not JSON: line {number}: {error}")
    if not isinstance(row, dict):
        return Rejection(f"not a JSON object: line {number}")
    seen.update(list(row)[:50])
    return _field(row.get(source.field), source, f"line {number}")


def _field(value: object, source: TextSource, where: str) -> str | Exception:
    if isinstance(value, str):
        return value
    kind = "nothing" if value is None else f"a {type(value).__name__}"
    return Rejection(f"no text in field {source.field!r}: {kind} at {where}")


def _parquet(piece: Piece, source: TextSource) -> Found:
    try:
        with open_uri(piece.source_uri) as stream:
            file = parquet.ParquetFile(stream)
            check_column(file.schema_arrow, source.field, piece.name)
            rows = file.read_row_groups(list(range(piece.start, piece.end)), columns=[source.field]).column(0)
    except (OSError, IndexError, pa.ArrowException) as error:
        if is_machine_error(error):
            raise
        raise SourceError(
            f"texts {piece.name}: row groups {piece.start} to {piece.end} cannot be read: {error}"
        ) from error
    for number, value in enumerate(rows, piece.place):
        yield number, _field(value.as_py(), source, f"row {number}")


class TextStage(TableStage):
    """The tokens of each document. Models: ``"tokenizer"``, a Hugging Face folder.

    Written in the same way as the words of recordings, with one space in front of each word, and with the line
    breaks of the document where the tokenizer can give them back.
    """

    name: ClassVar[str] = "text"
    about: ClassVar[str] = "tokens of the text documents"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("documents", ("document_id", "split", "text", "reject_stage", "reject_reason")),
    )
    schema: ClassVar[pa.Schema] = TEXT

    def setup(self) -> None:
        """Load the tokenizer."""
        _ = self._tokenizer

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer.load(self.models["tokenizer"])

    @cached_property
    def _keeps_lines(self) -> bool:
        probe = " a b\n\n c"
        return self._tokenizer.decode(self._tokenizer.encode(probe)) == probe

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row for each document."""
        (documents,) = tables
        return table_of([self._row(row) for row in documents.to_pylist()], TEXT)

    def _row(self, row: Row) -> Row:
        if is_rejected(row):
            return {**row, "text": None}
        text = spaced(self._tokenizer.known(str(row["text"])), lines=self._keeps_lines)
        ids = self._tokenizer.encode(text)
        kept = {**row, "text": text}
        return {**kept, "text_ids": ids} if ids else rejected(kept, self.name, "the tokenizer has no token for it")


def spaced(text: str, *, lines: bool) -> str:
    """One space in front of each word; with `lines`, line breaks stay, and blank lines in a row become one."""
    if not lines:
        return "".join([f" {word}" for word in text.split()])
    kept: list[str] = []
    for line in text.splitlines():
        words = "".join([f" {word}" for word in line.split()])
        if words or (kept and kept[-1]):
            kept.append(words)
    return "\n".join(kept).rstrip("\n")
