"""Manifests: a JSONL, JSON, CSV, TSV or Parquet file with a row per clip.

Column names of the usual data sets are understood (NeMo, Common Voice, Hugging Face exports).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from spiritlm_core.audio.config import ManifestSource
from spiritlm_core.audio.files import local_path, local_uri, printable, read_uri, stat_file
from spiritlm_core.audio.sources.draft import Draft, clean, decode_lines, missing
from spiritlm_core.errors import Rejection, SourceError, reason_of

_COLUMNS = {
    "path": ("path", "audio", "audio_filepath", "audio_path", "file", "file_name", "filename", "wav"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id", "spk_id", "client_id"),
    "language": ("language", "lang", "locale"),
    "start": ("start", "offset"),
    "end": ("end",),
    "duration": ("duration",),
    "channel": ("channel",),
}
Row = dict[str, Any]


def drafts(source: ManifestSource) -> Iterator[Draft]:
    """One draft per row of the manifest; a row that makes no sense is a draft with an error."""
    manifest = stat_file(source.path if source.path.startswith("s3://") else local_uri(local_path(source.path)))
    if manifest.error:
        raise SourceError(f"source manifest:{source.path}: {manifest.error}")
    root = source.audio_root or manifest.uri.rpartition("/")[0]
    for number, row, error in _rows(manifest.uri, source.path):
        try:
            yield _draft(row, root, error)
        except Rejection as problem:
            yield missing(f"{manifest.path}:{number}", f"{manifest.uri}#{number}", reason_of(problem))


def resolve(path: str, root: str) -> str:
    """The URI of what a manifest calls `path`, relative paths starting at `root`."""
    if "://" in path:
        return path
    if root.startswith("s3://") and not path.startswith("/"):
        return f"{root.rstrip('/')}/{path}"
    return local_uri(Path(local_path(root)) / path)


def _draft(row: Row, root: str, error: str | None) -> Draft:
    if error:
        raise Rejection(error)
    told = {name: _first(row, columns) for name, columns in _COLUMNS.items()}
    path = told["path"]["path"] if isinstance(told["path"], dict) else told["path"]
    if not isinstance(path, str) or not path:
        raise Rejection("no path to the audio: one of the columns " + ", ".join(_COLUMNS["path"]) + " must name it")
    uri = resolve(path, root)
    start, end = _window(_number(told["start"]), _number(told["end"]), _number(told["duration"]))
    channel = _number(told["channel"])
    return Draft(
        name=printable(path),
        uri=uri,
        file=stat_file(uri),
        text=clean(_text(told["text"])),
        speaker=_text(told["speaker"]),
        language=_text(told["language"]),
        start=start,
        end=end,
        channel=None if channel is None else int(channel),
    )


def _first(row: Row, names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Rejection(f"{value!r} is not a number") from None
    if not math.isfinite(number) or number < 0:
        raise Rejection(f"{value!r} must be zero or more")
    return number


def _window(start: float | None, end: float | None, duration: float | None) -> tuple[float | None, float | None]:
    """Stretch of the file; a duration without a start describes the whole file."""
    if end is None and start is not None and duration is not None:
        end = start + duration
    if end is not None and end <= (start or 0.0):
        raise Rejection(f"the stretch ends at {end:g} s, before it starts at {start or 0.0:g} s")
    return (None if start == 0.0 and end is None else start), end


def _rows(uri: str, shown: str) -> Iterator[tuple[int, Row, str | None]]:
    data, suffix = read_uri(uri), PurePosixPath(uri).suffix.lower()
    if suffix == ".parquet":
        yield from ((number, row, None) for number, row in enumerate(_parquet(data, shown), 1))
    elif suffix in (".csv", ".tsv"):
        yield from _csv(data, suffix, shown)
    else:
        yield from _jsonl(data, shown)


def _parquet(data: bytes, shown: str) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        columns = [name for name in file.schema_arrow.names if any(name in names for names in _COLUMNS.values())]
        for batch in file.iter_batches(columns=columns):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise SourceError(f"source manifest:{shown} is not Parquet: {error}") from error


def _csv(data: bytes, suffix: str, shown: str) -> Iterator[tuple[int, Row, str | None]]:
    lines = decode_lines(data, "utf-8", PurePosixPath(shown).name)
    bad = {number: reason for number, _, reason in lines if reason}
    text = io.StringIO("\n".join(line for _, line, _ in lines))
    # Common Voice writes bare quotes into tab-separated text
    rows = csv.reader(text, "excel-tab", quoting=csv.QUOTE_NONE) if suffix == ".tsv" else csv.reader(text)
    try:
        header, before = next(rows, []), rows.line_num
        for row in rows:
            reason = next((bad[number] for number in range(before + 1, rows.line_num + 1) if number in bad), None)
            before = rows.line_num
            if row:
                yield rows.line_num, dict(zip(header, row, strict=False)), reason
    except csv.Error as error:
        raise SourceError(f"source manifest:{shown}: line {rows.line_num}: {error}") from error


def _jsonl(data: bytes, shown: str) -> Iterator[tuple[int, Row, str | None]]:
    if data.lstrip()[:1] == b"[":
        yield from ((number, row, None) for number, row in enumerate(_json_list(data, shown), 1))
        return
    for number, line, reason in decode_lines(data, "utf-8", PurePosixPath(shown).name):
        if line.strip():
            yield number, *_json_line(line, number, reason)


def _json_list(data: bytes, shown: str) -> list[Row]:
    try:
        return [row if isinstance(row, dict) else {} for row in json.loads(data)]
    except ValueError as error:
        raise SourceError(f"source manifest:{shown} is not JSON: {error}") from error


def _json_line(line: str, number: int, reason: str | None) -> tuple[Row, str | None]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return {}, reason or f"line {number} is not JSON: {error}"
    return (row, reason) if isinstance(row, dict) else ({}, f"line {number} is not a JSON object")
