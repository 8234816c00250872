"""Manifests: a JSONL, JSON, CSV, TSV or Parquet file with a row per clip.

Column names of the usual data sets are understood (NeMo, Common Voice, Hugging Face, Coqui).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spiritlm_core.audio.config import ManifestSource
from spiritlm_core.audio.files import File, is_web, local_path, local_uri, printable, stat_file
from spiritlm_core.audio.sources.columns import Columns, check_path
from spiritlm_core.audio.sources.draft import Draft, missing
from spiritlm_core.audio.sources.rows import read_rows
from spiritlm_core.errors import Rejection, SourceError, reason_of


def drafts(source: ManifestSource) -> Iterator[Draft]:
    """One draft per row of the manifest; a row that makes no sense is a draft with an error."""
    manifest = stat_file(source.path if "://" in source.path else local_uri(local_path(source.path)))
    if manifest.error:
        raise SourceError(f"source manifest:{source.path}: {manifest.error}")
    root = source.audio_root or manifest.uri.rpartition("/")[0]
    yield from table_drafts(manifest, source.columns, source.encoding, lambda draft: _found(draft, root))


def table_drafts(
    table: File, columns: Mapping[Any, str], encoding: str, find: Callable[[Draft], Draft]
) -> Iterator[Draft]:
    """A draft per row of `table`.

    Args:
        table: the file.
        columns: which column is which field, where their names do not tell.
        encoding: of its text.
        find: adds the file to what a row says; may raise Rejection.

    Raises:
        SourceError: it is no table of recordings.
    """
    reader = Columns(columns, printable(table.name))
    try:
        for number, row, error in read_rows(table, encoding, reader.known):
            try:
                draft = None if error else find(reader.draft(row))
            except Rejection as problem:
                draft, error = None, reason_of(problem)  # noqa: PLW2901
            yield draft or missing(f"{table.name}:{number}", f"{table.uri}#{number}", str(error))
    except OSError as error:  # a table on the web that is not there
        raise SourceError(f"{table.uri}: {error}") from error
    reader.finish()


def resolve(path: str, root: str) -> str:
    """The URI of what a manifest calls `path`, relative paths starting at `root`.

    Raises:
        Rejection: no file can be called so.
    """
    check_path(path)
    if "://" in path:
        return path
    if root.startswith("s3://") and not path.startswith("/"):
        return f"{root.rstrip('/')}/{path}"
    if is_web(root):
        from urllib.parse import urljoin

        return urljoin(root.rstrip("/") + "/", path)
    return local_uri(Path(local_path(root)) / path)


def _found(draft: Draft, root: str) -> Draft:
    file = draft.file or stat_file(resolve(draft.name, root))
    return dataclasses.replace(draft, name=printable(draft.name), uri=file.uri, file=file)
