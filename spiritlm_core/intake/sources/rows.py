"""Rows of a table of clips: JSON, JSON lines, CSV, TSV and other lists with a header, Parquet.

A row is checked for its width and its quotes, and a bad one is given back with the reason: a text that is cut at a
comma, or that swallows the next rows, would be a wrong transcript.
"""

import csv
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from spiritlm_core.errors import Rejection, SourceError, is_machine_error
from spiritlm_core.intake.draft import decode_lines, decode_text
from spiritlm_core.intake.embedded import embedded_columns, has_bytes, row_uri
from spiritlm_core.intake.files import PACKED, File, printable
from spiritlm_core.intake.opening import open_uri, read_head, read_plain
from spiritlm_core.intake.sniff import AUDIO_SUFFIXES, HEAD, text_instead
from spiritlm_core.intake.sources.columns import ALIASES, Doubled, Row, object_of, read_json

Rows = Iterator[tuple[int, Row, str | None]]
"""Number of a row or line, column in lower case to value, and why the row is bad."""
Known = Callable[[list[str]], int]  # how many of the columns are known; 0 if none of them is a path
_SAID = {name for field, names in ALIASES.items() if field != "path" for name in names}  # of these no one is a sound
_KNOWN = {*_SAID, *ALIASES["path"]}
_SEPARATORS = "\t,|;"
_BUFFER = 1 << 16  # bytes of a column read at once; without one all of it is
_RECORD_LINES = 1000  # a quoted field of more lines was never closed


def read_rows(file: File, encoding: str, known: Known) -> Rows:
    """The rows of a table, in whatever format its content is.

    Args:
        file: the table.
        encoding: of its text.
        known: finds the line that is the header.

    Raises:
        SourceError: it is damaged as a whole, or has no column that names a recording.
    """
    name = PurePosixPath(file.path.partition("?")[0].lower())
    if name.suffix == ".parquet":
        yield from _parquet(file)
        return
    data, shown = read_plain(file.uri), printable(file.name)
    kind = PurePosixPath(name.stem).suffix if name.suffix in PACKED else name.suffix
    if kind in (".json", ".jsonl", ".ndjson") or (kind not in (".csv", ".tsv") and data.lstrip()[:1] in (b"{", b"[")):
        yield from _json(data, encoding, shown, known)
    else:
        yield from _separated(decode_lines(data, encoding, shown), shown, known)


def _parquet(file: File) -> Rows:
    try:
        with open_uri(file.uri) as stream:
            table = parquet.ParquetFile(stream, buffer_size=_BUFFER)
            yield from ((number, row, None) for number, row in enumerate(_parquet_rows(table, file), 1))
    except Exception as error:  # whatever pyarrow makes of damaged metadata
        if is_machine_error(error) or isinstance(error, SourceError):
            raise
        reason = text_instead(read_head(file.uri, HEAD)) or error
        raise SourceError(f"{printable(file.name)} is not Parquet, or damaged: {reason}") from error


def _parquet_rows(table: Any, file: File) -> Iterator[Row]:
    """Rows without the bytes of their recordings, which are named instead."""
    schema, place = table.schema_arrow, itertools.count()
    _check_once_each([name for name in map(_plain, schema.names) if name in _KNOWN], printable(file.name))
    sounds = [name for name in embedded_columns(schema) if _plain(name) not in _SAID]
    columns = [name for field in schema if field.name not in sounds for name in _columns_of(field)]
    columns += [name for sound in sounds for name in _columns_of(schema.field(sound)) if name != sound]
    inside = {sound for sound in sounds if has_bytes(table, sound)}
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        size = group.total_byte_size // max(1, group.num_rows)
        batches = table.iter_batches(row_groups=[number], columns=columns)
        values = (
            (row for batch in batches for row in batch.to_pylist()) if columns else ({} for _ in range(group.num_rows))
        )
        for row, at in zip(values, place, strict=False):
            yield _lower(row | {name: _inside(file, name, at, size, row.get(name)) for name in inside})


def _columns_of(field: pa.Field) -> list[str]:
    """The columns to read for a field: of a structure its path, of a list none unless its name is that of a field."""
    if isinstance(field.type, pa.StructType) and field.type.get_field_index("path") >= 0:
        return [f"{field.name}.path"]
    known = any(field.name.lower() in names for names in ALIASES.values())
    return [field.name] if known or not pa.types.is_nested(field.type) else []


def _inside(table: File, column: str, row: int, size: int, told: object) -> File:
    """The recording in a row, called as the row calls it."""
    path = told.get("path") if isinstance(told, dict) else None
    name = str(path or f"{table.name}:{row + 1}")
    return File(name, row_uri(table.uri, column, row), size, table.version, table.modified)


def _plain(name: object) -> str:
    return str(name).strip().lower()


def _lower(row: Row) -> Row:
    return {_plain(name): value for name, value in row.items()}


def _json(data: bytes, encoding: str, shown: str, known: Known) -> Rows:
    """One document, or a document in each line."""
    text, reason = decode_text(data, encoding, shown)
    try:
        yield from ((number, row, reason or bad) for number, row, bad in _documents(read_json(text), shown, known))
    except (ValueError, RecursionError) as error:
        first = text.lstrip().partition("\n")[0].strip()
        lines = list(_json_lines(data, encoding, shown))
        if first in ("{", "[", "") or not any(row for _, row, _ in lines):
            raise SourceError(f"{shown} is neither JSON nor JSON lines: {error}") from error
        yield from lines


def _documents(document: object, shown: str, known: Known) -> Rows:
    """The rows of a document: a list, an object with one list of objects in it, or one object."""
    if isinstance(document, dict) and not known(list(_lower(document))):
        lists = {
            name: value for name, value in document.items() if isinstance(value, list) and value and _is_row(value[0])
        }
        if len(lists) > 1:
            raise SourceError(f"{shown}: rows are in {' and in '.join(lists)}: make it a list of one kind of rows")
        document = next(iter(lists.values()), document)
    for number, value in enumerate(document if isinstance(document, list) else [document], 1):
        yield number, *_row_of(value, f"row {number}")


def _is_row(value: object) -> bool:
    return isinstance(value, dict | Doubled)


def _row_of(value: object, place: str) -> tuple[Row, str | None]:
    """A row, and why it is bad."""
    try:
        told = object_of(value)
    except Rejection as problem:
        return {}, f"{place} {'' if isinstance(value, Doubled) else 'is '}{problem}"
    row = _lower(told)
    if len(row) < len(told) and (name := _twice([_plain(name) for name in told if _plain(name) in _KNOWN])):
        return {}, f"{place} names {name!r} twice"
    return row, None


def _json_lines(data: bytes, encoding: str, shown: str) -> Rows:
    for number, line, reason in decode_lines(data, encoding, shown):
        if line.strip():
            try:
                row, bad = _row_of(read_json(line), f"line {number}")
            except (ValueError, RecursionError) as error:
                row, bad = {}, f"line {number} is not JSON: {error}"
            yield number, row, reason or bad


def _separated(lines: list[tuple[int, str, str | None]], shown: str, known: Known) -> Rows:
    """Rows below a header, whose separator is the one that gives the most known columns."""
    csv.field_size_limit(sys.maxsize)
    header, mark = max(((_header(lines, mark), mark) for mark in _SEPARATORS), key=lambda pair: known(pair[0]))
    if not known(header):
        there = printable(", ".join(header)[:200])
        what = f"its first line names no column with a path to the audio, only {there}" if there else "it is empty"
        raise SourceError(f"{shown}: {what}")
    _check_once_each(header, shown)
    records = _records(lines, mark)
    next(records)
    for number, cells, reason in records:
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(header):
            reason = reason or _width(number, len(cells), len(header), mark)  # noqa: PLW2901
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name}
        yield number, {} if reason else row, reason


def _check_once_each(header: list[str], shown: str) -> None:
    if name := _twice(header):
        raise SourceError(f"{shown}: there are two columns {name!r}")


def _twice(names: list[str]) -> str | None:
    return next((name for name in names if name and names.count(name) > 1), None)


def _header(lines: list[tuple[int, str, str | None]], mark: str) -> list[str]:
    return [cell.strip().lower() for cell in next((cells for _, cells, _ in _records(lines, mark)), [])]


def _names_sound(line: str, mark: str) -> bool:
    return any(PurePosixPath(cell.strip(' "')).suffix.lower() in AUDIO_SUFFIXES for cell in line.split(mark))


def _width(number: int, has: int, wants: int, mark: str) -> str:
    why = f"; put a text that holds {mark!r} into quotes" if has > wants else ""
    return f"line {number} has {has} fields, the header has {wants}{why}"


def _records(lines: list[tuple[int, str, str | None]], mark: str) -> Iterator[tuple[int, list[str], str | None]]:
    """Number of the first line, cells and reason of every record that is not blank.

    Commas and semicolons go with quotes, which may reach over lines. Tab-separated texts often begin with a bare
    quote (Common Voice), so only a field that is quoted as a whole is unquoted; bars know no quotes.
    """
    at, many = 0, _RECORD_LINES if mark in ",;" else 1
    quoting: Literal[0, 3] = csv.QUOTE_NONE if mark == "|" else csv.QUOTE_MINIMAL
    while at < len(lines):
        number, line, reason = lines[at]
        texts = (lines[place][1] + "\n" for place in range(at, min(at + many, len(lines))))
        reader = csv.reader(texts, delimiter=mark, strict=True, skipinitialspace=True, quoting=quoting)
        try:
            cells, used = next(reader), reader.line_num
        except csv.Error as error:
            cells, used = line.split(mark), 1
            if mark in ",;":
                reason = reason or f"line {number}: a quote is not closed, or not doubled within quotes ({error})"
        if used > 1 and any(_names_sound(text, mark) for _, text, _ in lines[at + 1 : at + used]):
            cells, used = line.split(mark), 1
            reason = reason or f"line {number}: a quote that begins there swallows the rows below it"
        reason = next((why for _, _, why in lines[at : at + used] if why), reason)
        at += used
        if any(cell.strip() for cell in cells):
            yield number, cells, reason
