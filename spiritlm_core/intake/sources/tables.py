"""Tables with a header in a folder: Hugging Face's ``metadata.csv`` and Parquet, Common Voice, Coqui and others."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import PurePosixPath

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.files import File
from spiritlm_core.intake.notes import note
from spiritlm_core.intake.sources.manifest import table_drafts
from spiritlm_core.intake.sources.tree import Tree

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_LOOKED_AT = 50
_REFUSED = "invalidated"  # Common Voice: what listeners found to be something else than the sentence


def read(tree: Tree, encoding: str) -> Iterator[Draft]:
    """One draft per row of every table of which some of the first rows name recordings."""
    for file in tree.unused():
        name = PurePosixPath(file.name.lower())
        if file.error or not {name.suffix, PurePosixPath(name.stem).suffix} & {*SUFFIXES, ".txt"}:
            continue
        try:
            rows = table_drafts(file, {}, encoding, lambda draft, table=file: tree.placed(draft, table))  # type: ignore[misc]
            first = list(itertools.islice(rows, _LOOKED_AT))
            if any(draft.file or _is_bad_row(draft, file) for draft in first):
                tree.used.add(file.uri)
                yield from (_refused(draft, file) for draft in itertools.chain(first, rows))
        except SourceError as error:
            if file.uri in tree.used:
                note(f"{error}: the rest of it is not used")


def _is_bad_row(draft: Draft, table: File) -> bool:
    """Whether a row below a header with a path is bad in itself: its table is one of recordings nevertheless."""
    return draft.uri.startswith(f"{table.uri}#") and table.suffix in (".csv", ".tsv")


def _refused(draft: Draft, table: File) -> Draft:
    if PurePosixPath(table.name).stem != _REFUSED:
        return draft
    return dataclasses.replace(draft, error=f"listeners found it wrong, says {table.name}")
