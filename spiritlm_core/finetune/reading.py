"""Reading a user's data set, Parquet or JSON lines, row by row; each row is identified by its content."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.finetune.config import DataConfig
from spiritlm_core.finetune.rows import Recording, TaskRow
from spiritlm_core.finetune.template import Template
from spiritlm_core.intake.embedded import row_uri
from spiritlm_core.intake.files import File, list_tree, local_path, local_uri, printable, stat_file, stat_files
from spiritlm_core.intake.opening import format_of, open_plain, open_uri
from spiritlm_core.intake.sources.columns import names_of, object_in, resolve
from spiritlm_core.intake.statcache import StatCache, hash_files
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.split import HELD_OUT

_BATCH = 64  # rows of a Parquet file held at once, recordings and all
_UNITS = ("[Hu", "[Pi", "[St")
Names = Mapping[str, tuple[str, ...]]  # field to what its column may be called


@dataclass
class _Draft:
    """A row as it was read; `uris` are the recordings by field that are still to be looked for, `files` those found."""

    name: str
    source_uri: str
    place: int
    split: str | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    recordings: dict[str, Recording] = dataclasses.field(default_factory=dict)
    uris: dict[str, str] = dataclasses.field(default_factory=dict)
    files: dict[str, File] = dataclasses.field(default_factory=dict)
    size: int = 0
    error: str | None = None


def read_rows(config: DataConfig, template: Template, cache: StatCache) -> list[TaskRow]:
    """Every row of a data set, good or bad; a row that is there twice is bad the second time.

    `cache` knows the content of recordings that did not change, and is updated. Raises SourceError: there is no such
    file, it cannot be read, or it lacks a column.
    """
    if unknown := sorted(set(config.columns) - set(template.fields)):
        raise SourceError(
            f"data.columns.{unknown[0]}: template {template.name} has no such field, only {', '.join(template.fields)}"
        )
    drafts = [draft for file in _files(config.path) for draft in _drafts(file, config, template)]
    if not drafts:
        raise SourceError(f"data {config.path}: there are no rows in it")
    _look_up(drafts)
    hashes = hash_files((file for draft in drafts for file in draft.files.values() if not file.error), cache)
    return _distinct([_finished(draft, hashes) for draft in drafts])


def _look_up(drafts: Sequence[_Draft]) -> None:
    """Find the recordings of all rows at once: a bucket is asked for each folder, not for each row."""
    wanted = [(draft, field, uri) for draft in drafts for field, uri in draft.uris.items()]
    for (draft, field, _), file in zip(wanted, stat_files([uri for *_, uri in wanted]), strict=True):
        draft.recordings[field], draft.files[field] = Recording(uri=file.uri), file
        draft.size += file.size


def _files(path: str) -> list[File]:
    local = not path.startswith("s3://")
    uri = local_uri(local_path(path)) if local else path
    file = stat_file(uri)
    if not file.error:
        if format_of(file.path) not in ("jsonl", "parquet"):
            raise SourceError(f"data {path}: is no .parquet or .jsonl file")
        return [file]
    try:
        found = list_tree(local_path(uri) if local else path)
    except SourceError:
        raise SourceError(f"data {path}: there is no such file or folder") from None
    if not (files := [file for file in found if format_of(file.path) in ("jsonl", "parquet")]):
        raise SourceError(f"data {path}: there is no .parquet or .jsonl file in it")
    return files


def _drafts(file: File, config: DataConfig, template: Template) -> Iterator[_Draft]:
    """The rows of one file. Raises SourceError if a column is missing altogether."""
    names = _names(config, template)
    wanted = [*(name for group in names.values() for name in group)]
    wanted += [config.split_column] if config.split_column else []
    read = _parquet if format_of(file.path) == "parquet" else _json_lines
    seen: set[str] = set()
    for place, values in read(file, wanted, seen):
        draft = _Draft(f"{printable(file.path)}:{place}", file.uri, place)
        try:
            if isinstance(values, Exception):
                raise values
            _take(draft, values, names, config, template)
        except Rejection as problem:
            draft.error = str(problem)
        yield draft
    if seen:
        _check_columns(file, names, seen, config, template)


def _names(config: DataConfig, template: Template) -> Names:
    """What the column of each field may be called, the likeliest first; a name is never that of two fields."""
    taken = {*template.fields, *config.columns.values()}
    return {
        field: (first, *(name for name in others if name not in taken))
        for field in template.fields
        for first, *others in [names_of(field, config.columns)]
    }


def _check_columns(file: File, names: Names, seen: set[str], config: DataConfig, template: Template) -> None:
    there = ", ".join(sorted(seen)) or "nothing"
    for field, columns in names.items():
        if seen.isdisjoint(columns) and template.fields[field][1]:
            raise SourceError(
                f"{printable(file.path)}: there is no column {columns[0]!r} for the field {field!r} of template "
                f"{template.name}, only {there}: name the right one with data.columns.{field}"
            )
    if config.split_column and config.split_column not in seen:
        raise SourceError(f"{printable(file.path)}: there is no column {config.split_column!r} "
                          f"(data.split_column), only {there}")  # fmt: skip


def _json_lines(file: File, wanted: Sequence[str], seen: set[str]) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    del wanted
    try:
        with open_plain(file.uri, file.path) as stream:
            for place, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    values = object_in(line)
                except Rejection as problem:
                    yield place, problem
                    continue
                seen.update(values)
                yield place, values
    except (OSError, EOFError) as error:
        raise SourceError(f"{printable(file.path)}: cannot be read: {error}") from error


def _parquet(file: File, wanted: Sequence[str], seen: set[str]) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
    try:
        with open_uri(file.uri) as stream:
            parquet_file = parquet.ParquetFile(stream)
            seen.update(parquet_file.schema_arrow.names)
            columns = [name for name in dict.fromkeys(wanted) if name in seen]
            place = 0
            for batch in parquet_file.iter_batches(batch_size=_BATCH, columns=columns) if columns else []:
                for values in batch.to_pylist():
                    place += 1
                    yield place, values
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{printable(file.path)}: cannot be read as Parquet: {error}") from error


def _take(draft: _Draft, values: Mapping[str, Any], names: Names, config: DataConfig, template: Template) -> None:
    draft.split = _said_split(values.get(config.split_column)) if config.split_column else None
    root = draft.source_uri.rpartition("/")[0]
    for field, (kind, _) in template.fields.items():
        column = next((name for name in names[field] if values.get(name) not in (None, "", b"")), None)
        if column is None:
            continue
        if kind == "text":
            draft.texts[field] = _text(values[column], column)
        else:
            _take_recording(draft, field, values[column], column, root)


def _said_split(value: Any) -> str:
    name = str(value).lower()
    if name == "train":
        return "train"
    if name not in HELD_OUT:
        raise Rejection(f"split {value!r} is neither train nor one of {', '.join(HELD_OUT)}")
    return "held_out"


def _text(value: Any, column: str) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Rejection(f"{column}: half a surrogate pair, a character that no encoding has") from error
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise Rejection(f"{column}: holds {value if isinstance(value, float) else type(value).__name__}, not text")


def _take_recording(draft: _Draft, field: str, value: Any, column: str, root: str) -> None:
    """A path, the bytes of a file, a Hugging Face struct of both, or speech tokens."""
    data = value.get("bytes") if isinstance(value, dict) else value if isinstance(value, bytes) else None
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(data, bytes) and data:
        uri = row_uri(draft.source_uri, column, draft.place - 1)
        draft.recordings[field] = Recording(uri, sha256=hashlib.sha256(data).hexdigest())
        draft.size += len(data)
    elif isinstance(path, str) and path.lstrip().startswith(_UNITS):
        draft.recordings[field] = Recording(tokens=path)
    elif isinstance(path, str) and path:
        draft.uris[field] = resolve(path, root)
    else:
        raise Rejection(f"{column}: holds no path and no bytes of a recording")


def _finished(draft: _Draft, hashes: Mapping[str, str | Exception]) -> TaskRow:
    for field, file in draft.files.items():
        found = file.error or hashes[file.uri]
        if file.error or isinstance(found, Exception):
            draft.error = draft.error or f"{field}: {printable(local_path(file.uri))}: {found}"
        else:
            draft.recordings[field] = dataclasses.replace(draft.recordings[field], sha256=str(found))
    texts, recordings = (json.dumps(found, sort_keys=True) for found in (draft.texts, _plain(draft.recordings)))
    said = {field: recording.content for field, recording in draft.recordings.items()}
    key = digest(["task row", draft.texts, said, draft.split])
    if draft.error:
        key = digest(["bad task row", draft.name, draft.error])
    return TaskRow(
        key, draft.name, draft.source_uri, draft.place, draft.split, texts, recordings, draft.size, draft.error
    )


def _plain(recordings: Mapping[str, Recording]) -> dict[str, dict[str, str]]:
    return {
        field: {name: value for name, value in dataclasses.asdict(recording).items() if value is not None}
        for field, recording in recordings.items()
    }


def _distinct(rows: Iterable[TaskRow]) -> list[TaskRow]:
    first: dict[str, TaskRow] = {}
    found = []
    for row in rows:
        same = first.setdefault(row.key, row)
        if same is not row:
            key = digest(["again", row.key, row.name])
            row = dataclasses.replace(row, key=key, error=f"the same as {same.name}")  # noqa: PLW2901
        found.append(row)
    return found
