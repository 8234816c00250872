"""Recordings laid out as Google's Speech Commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from spiritlm_core.intake.draft import Draft, draft_of
from spiritlm_core.intake.source import TreeSource
from spiritlm_core.intake.sources.tree import Tree


class SpeechCommandsSource(TreeSource):
    """Google's Speech Commands: ``WORD/SPEAKER_nohash_NUMBER.wav``."""

    kind: Literal["speech_commands"] = "speech_commands"

    def drafts(self) -> Iterator[Draft]:
        """One draft per recording, whose folder is what was said."""
        for file in Tree(self.path, follow_symlinks=self.follow_symlinks).audio:
            yield draft_of(file, text=file.folder, speaker=file.name.partition("_")[0])
