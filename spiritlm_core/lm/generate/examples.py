"""Solved examples: a question and its answer, each of stretches of text and of speech."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spiritlm_core.lm.generate.prompts import Kind

if TYPE_CHECKING:
    from spiritlm_core.tokens.vocabulary import Vocabulary

Parts = tuple[tuple[Kind, str], ...]
"""Stretches of text as it is, and of speech as tokens such as ``[St3][Pi1][Hu7]``."""

_PROSODY = re.compile(r"\[(?:Pi|St)[0-9]+\]")


@dataclass(frozen=True)
class Example:
    """A question and its answer."""

    question: Parts
    answer: Parts

    @property
    def text(self) -> str:
        """All text of the answer."""
        return " ".join(content for kind, content in self.answer if kind == "text")

    @property
    def speech(self) -> str:
        """All speech tokens of the answer."""
        return "".join(content for kind, content in self.answer if kind == "speech")

    def __len__(self) -> int:
        """Characters of question and answer."""
        return sum(len(content) for _, content in (*self.question, *self.answer))


def joined(parts: Iterable[tuple[Kind, str]]) -> Parts:
    """The same parts, neighbours of one kind as one: texts with a space between them."""
    merged: list[tuple[Kind, str]] = []
    for kind, content in parts:
        if merged and merged[-1][0] == kind:
            before = merged.pop()[1]
            merged.append((kind, f"{before} {content}" if kind == "text" else before + content))
        else:
            merged.append((kind, content))
    return tuple(merged)


def known_streams(tokens: str, vocabulary: Vocabulary) -> str:
    """Speech tokens without those of streams that a Base model does not have."""
    return tokens if vocabulary.pitch and vocabulary.style else _PROSODY.sub("", tokens)
