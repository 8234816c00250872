"""LJSpeech layout: ``metadata.csv`` with lines ``ID|TEXT|NORMALISED TEXT`` and ``wavs/ID.wav``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.source import TreeSource
from spiritlm_core.intake.sources.folder import told
from spiritlm_core.intake.sources.lists import list_drafts, list_lines
from spiritlm_core.intake.sources.tree import Tree


class LJSpeechSource(TreeSource):
    """``metadata.csv`` with lines ``ID|TEXT|NORMALISED TEXT`` and ``wavs/ID.wav``."""

    kind: Literal["ljspeech"] = "ljspeech"
    normalized: bool = Field(True, description="Take the third column (numbers written out) where there is one.")

    def drafts(self) -> Iterator[Draft]:
        """One draft per audio file and per line of the metadata without one."""

        def read(tree: Tree, encoding: str) -> Iterator[Draft]:
            metadata = next((file for file in tree.others if file.path == "metadata.csv"), None)
            if metadata is None or metadata.error:
                why = metadata.error if metadata else "it has no metadata.csv"
                raise SourceError(f"source ljspeech:{self.path}: {why}")
            return list_drafts(tree, metadata, list_lines(metadata, encoding), normalized=self.normalized)

        return told(self, (read,))


def is_ljspeech(metadata: Path) -> bool:
    """Whether the first line is ``ID|TEXT`` or ``ID|TEXT|NORMALISED TEXT``, rather than a header or ``PATH|TEXT``."""
    try:
        with metadata.open("rb") as file:
            first = re.split(rb"[\r\n]", file.read(65_536).lstrip())[0].decode("utf-8", "replace")
    except OSError:
        return False
    name, *texts = first.split("|")
    return len(texts) in (1, 2) and not re.search(r"\.\w{2,4}$", name) and not _HEADER.search(name)


_HEADER = re.compile(r"^\ufeff?\s*(id|path|audio\w*|file\w*|wav\w*)\s*$", re.IGNORECASE)
