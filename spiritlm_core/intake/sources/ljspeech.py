"""LJSpeech layout: ``metadata.csv`` with lines ``ID|TEXT|NORMALISED TEXT`` and ``wavs/ID.wav``."""

from __future__ import annotations

from collections.abc import Iterator

from spiritlm_core.audio.config import LJSpeechSource
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.sources.draft import Draft
from spiritlm_core.intake.sources.folder import told
from spiritlm_core.intake.sources.lists import list_drafts, list_lines
from spiritlm_core.intake.sources.tree import Tree


def drafts(source: LJSpeechSource) -> Iterator[Draft]:
    """One draft per audio file and per line of the metadata without one."""

    def read(tree: Tree, encoding: str) -> Iterator[Draft]:
        metadata = next((file for file in tree.others if file.path == "metadata.csv"), None)
        if metadata is None or metadata.error:
            why = metadata.error if metadata else "it has no metadata.csv"
            raise SourceError(f"source ljspeech:{source.path}: {why}")
        return list_drafts(tree, metadata, list_lines(metadata, encoding), normalized=source.normalized)

    return told(source, (read,))
