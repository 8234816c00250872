"""LibriSpeech layout: ``SPEAKER-CHAPTER.trans.txt`` with lines ``ID TEXT`` beside ``ID.flac``."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from spiritlm_core.intake.draft import Draft, missing
from spiritlm_core.intake.files import printable
from spiritlm_core.intake.source import TreeSource
from spiritlm_core.intake.sources.folder import told
from spiritlm_core.intake.sources.lists import list_drafts, list_lines
from spiritlm_core.intake.sources.tree import Tree


class LibriSpeechSource(TreeSource):
    """``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` with lines ``ID TEXT`` beside ``ID.flac``."""

    kind: Literal["librispeech"] = "librispeech"

    def drafts(self) -> Iterator[Draft]:
        """One draft per audio file and per transcript line without one."""
        for draft in told(self, (_read,)):
            # the part of an ID in front of the first hyphen
            speaker = printable(draft.file.name.partition("-")[0]) if draft.file else None
            yield dataclasses.replace(draft, speaker=speaker)


def _read(tree: Tree, encoding: str) -> Iterator[Draft]:
    for file in tree.others:
        if file.path.endswith(".trans.txt") and file.error:
            tree.used.add(file.uri)
            yield missing(file.path, file.uri, f"transcripts {printable(file.path)}: {file.error}")
        elif file.path.endswith(".trans.txt"):
            yield from list_drafts(tree, file, list_lines(file, encoding))
