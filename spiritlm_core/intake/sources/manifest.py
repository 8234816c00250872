"""Manifests: a JSONL, JSON, CSV, TSV or Parquet file with a row per clip, or a list of the kinds in `lists`.

Column names of the usual data sets are understood (NeMo, Common Voice, Hugging Face, Coqui).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from spiritlm_core.errors import Rejection, SourceError, reason_of
from spiritlm_core.intake.draft import Draft, located, missing
from spiritlm_core.intake.files import File, is_web, local_path, local_uri, printable, stat_file
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.sources import lists
from spiritlm_core.intake.sources.columns import Columns, resolve
from spiritlm_core.intake.sources.rows import read_rows
from spiritlm_core.intake.sources.tree import Tree

Place = Literal["path", "start", "end", "duration", "channel"]
ClipField = Place | Literal["text", "speaker", "language", "label", "licence", "consent", "expires"]


class ManifestSource(Source):
    """A JSONL, CSV, TSV or Parquet file with a row per clip: path, text, speaker, start, end, label and so on."""

    kind: Literal["manifest"] = "manifest"
    path: str = Field(min_length=1, description="The manifest: .jsonl, .json, .csv, .tsv or .parquet, local or s3://.")
    audio_root: str | None = Field(None, description="Where relative paths start; null is the manifest's own folder.")
    columns: dict[ClipField, str] = Field(
        {}, description="Column of each field (path, text …) whose name does not tell."
    )
    encoding: str = Field("utf-8", description="Character encoding of the manifest; a byte order mark wins.")

    def drafts(self) -> Iterator[Draft]:
        """One draft per row of the manifest; a row that makes no sense is a draft with an error."""
        manifest = stat_file(self.path if "://" in self.path else local_uri(local_path(self.path)))
        if manifest.error:
            raise SourceError(f"source manifest:{self.path}: {manifest.error}")
        root = self.audio_root or manifest.uri.rpartition("/")[0]
        rows = table_drafts(manifest, self.columns, self.encoding, lambda draft: _placed(draft, root))
        try:
            yield from (_shown(draft, root) for draft in located(rows))
        except SourceError as problem:
            yield from _of_list(manifest, root, self, problem)


def _of_list(manifest: File, root: str, source: ManifestSource, problem: SourceError) -> Iterator[Draft]:
    """One draft per line of a list without a header, whose recordings lie below `root`; else raises `problem`."""
    if manifest.suffix not in lists.SUFFIXES or source.columns or is_web(root):
        raise problem
    tree = Tree(root, follow_symlinks=False)
    if not (lines := lists.lines_of(tree, manifest, source.encoding)):
        raise SourceError(f"{problem}, nor do its lines begin with names of recordings below {root}") from problem
    yield from lists.list_drafts(tree, manifest, lines)


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


def _placed(draft: Draft, root: str) -> Draft:
    return draft if draft.file else dataclasses.replace(draft, uri=resolve(draft.name, root))


def _shown(draft: Draft, root: str) -> Draft:
    file = draft.file
    if file and file.error and "\\" in draft.name:  # a path of Windows
        file = stat_file(resolve(draft.name.replace("\\", "/"), root))
    return dataclasses.replace(draft, name=printable(draft.name), uri=file.uri if file else draft.uri, file=file)
