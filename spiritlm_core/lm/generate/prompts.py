"""Prompts: text and speech parts in one sequence, with a marker wherever the modality changes; solved examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from spiritlm_core.tokens.vocabulary import SPEECH_MARKER, TEXT_MARKER, Vocabulary

Kind = Literal["text", "speech"]
Modality = Literal["text", "speech", "any"]
Part = tuple[Kind, Sequence[int]]
"""A stretch of one modality: its kind and its token ids."""
Parts = tuple[tuple[Kind, str], ...]
"""Stretches of text as it is, and of speech as tokens such as ``[St3][Pi1][Hu7]``."""
_PROSODY = re.compile(r"\[(?:Pi|St)[0-9]+\]")
_MARKERS = {"text": TEXT_MARKER, "speech": SPEECH_MARKER}


def prompt_ids(parts: Iterable[Part], vocabulary: Vocabulary, modality: Modality = "any") -> list[int]:
    """BOS, then the parts with ``[Text]`` or ``[Speech]`` in front of each change, then the marker of the output.

    The output's marker is left out if the last part already has that modality, or for ``any``.
    """
    ids = [] if vocabulary.bos is None else [vocabulary.bos]
    last: str | None = None
    for kind, tokens in parts:
        if kind != last:
            ids.append(marker(kind, vocabulary))
        ids.extend(tokens)
        last = kind
    if modality not in ("any", last):
        ids.append(marker("text" if modality == "text" else "speech", vocabulary))
    return ids


def prompt_string(parts: Iterable[tuple[Kind, str]], modality: Modality = "any") -> str:
    """The prompt of the released models: as :func:`prompt_ids`, but as one string, which is then tokenized."""
    pieces: list[str] = []
    last: str | None = None
    for kind, content in parts:
        pieces += [content] if kind == last else [_MARKERS[kind], content]
        last = kind
    if modality not in ("any", last):
        pieces.append(_MARKERS[modality])
    return "".join(pieces)


def turns(modality: Modality) -> tuple[str, ...]:
    """The markers at which an answer turns to another modality than the one asked for."""
    return {"text": (SPEECH_MARKER,), "speech": (TEXT_MARKER,), "any": ()}[modality]


def marker(kind: Kind, vocabulary: Vocabulary) -> int:
    """Id of ``[Text]`` or ``[Speech]``."""
    return vocabulary.text_marker if kind == "text" else vocabulary.speech_marker


def parts_of(ids: Iterable[int], vocabulary: Vocabulary) -> list[tuple[Kind, list[int]]]:
    """Split token ids into parts of one modality; markers, BOS and EOS are dropped."""
    dropped = {vocabulary.text_marker, vocabulary.speech_marker, vocabulary.bos, vocabulary.eos}
    parts: list[tuple[Kind, list[int]]] = []
    for token in ids:
        if token in dropped:
            continue
        kind: Kind = "text" if token < vocabulary.text_size else "speech"
        if not parts or parts[-1][0] != kind:
            parts.append((kind, []))
        parts[-1][1].append(token)
    return parts


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
