"""Prompts: text and speech parts in one sequence, with a marker wherever the modality changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from spiritlm_core.tokens.vocabulary import SPEECH_MARKER, TEXT_MARKER, Vocabulary

Kind = Literal["text", "speech"]
Modality = Literal["text", "speech", "any"]
Part = tuple[Kind, Sequence[int]]
"""A stretch of one modality: its kind and its token ids."""
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
    """The prompt of the released models: as :func:`prompt_ids`, but as one string, which is then tokenized.

    Args:
        parts: kind, and text as it is or speech tokens such as ``[St3][Pi1][Hu7]``.
        modality: of the answer.
    """
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
