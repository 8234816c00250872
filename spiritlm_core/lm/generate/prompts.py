"""Prompts: text and speech parts in one sequence, with a marker wherever the modality changes; solved examples.

Answers of the released models are read back by the rules of their implementation (arXiv 2402.05755), which tell parts
apart by what a string looks like: ``[Hu…``, ``[Pi…`` and ``[St…`` up to the next ``]`` are speech, the markers vanish.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from spiritlm_core.tokens.vocabulary import SPEECH_MARKER, TEXT_MARKER, Vocabulary

Kind = Literal["text", "speech"]
Finish = Literal["eos", "stop", "length", "silence"]
"""What ended an answer; ``silence``: it was not begun, because nothing was said in the recording."""
Modality = Literal["text", "speech", "any"]
Part = tuple[Kind, Sequence[int]]  # A stretch of one modality: its kind and its token ids
Parts = tuple[tuple[Kind, str], ...]  # stretches of text as it is, and of speech as tokens such as ``[St3][Pi1][Hu7]``
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


SHORTEST = 24  # HuBERT tokens, about a second: shorter speech between other things is not worth hearing

_SPOKEN = r"\[(?:Hu|Pi|St)[^\[\]]{1,7}\]"
_STARTS, _ENDS = re.compile(_SPOKEN), re.compile(_SPOKEN + r"\Z")
_RUN = re.compile(r"(?:\[(?:Hu|Pi|St)[0-9]+\])+")
_PIECE = re.compile(r"(?P<marker>\[Text\]|\[Speech\])|(?P<speech>\[(?:Hu|Pi|St)[^\]]*\]?)|\[|[^\[]+")


def starts_with_speech(string: str) -> bool:
    """Whether a speech token opens the string."""
    return _STARTS.match(string) is not None


def ends_with_speech(string: str) -> bool:
    """Whether a speech token closes the string."""
    return _ENDS.search(string) is not None


def last_run(string: str) -> int | None:
    """Where the last unbroken run of speech tokens begins, or None if there is none."""
    starts = [match.start() for match in _RUN.finditer(string)]
    return starts[-1] if starts else None


def parse(string: str) -> list[tuple[Kind, str]]:
    """Split into text and speech; neighbours of one kind merge, also across a marker, which vanishes."""
    parts: list[tuple[Kind, str]] = []
    for match in _PIECE.finditer(string):
        if match["marker"]:
            continue
        kind: Kind = "speech" if match["speech"] else "text"
        before = parts.pop()[1] if parts and parts[-1][0] == kind else ""
        parts.append((kind, before + match[0]))
    return parts


def read_back(prompt: str, continuation: str, modality: Modality) -> tuple[list[tuple[Kind, str]], str]:
    """The parts of a continuation of a prompt; ``any`` splits, the other modalities give one part.

    With the speech tokens at the end of the prompt that the first part goes on with (then it begins with them), or "".
    """
    stripped = continuation.strip()
    if modality != "any":
        return [(modality, stripped)], ""
    if ends_with_speech(prompt) and starts_with_speech(stripped) and (start := last_run(prompt)) is not None:
        return parse((prompt[start:] + continuation).strip()), prompt[start:]
    return parse(stripped), ""


def audible(samples: int, tokens: str, continues: str, *, first: bool, asked: bool = False) -> range | None:
    """Which samples of the waveform of a speech part are heard.

    Args:
        samples: of the waveform of all tokens, those of the prompt included.
        tokens: of the part, those of the prompt in front.
        continues: those of the prompt; empty if the part does not go on with the prompt's speech.
        first: whether the part is the first one of the answer.
        asked: whether an answer in speech was asked for.

    Returns None if it is too short to be heard: less than 24 new HuBERT tokens, unless it opens the answer anew or
    speech was asked for.
    """
    units, known = tokens.count("[Hu"), continues.count("[Hu")
    if not asked and units - known < SHORTEST and (continues or not first):
        return None
    return range(math.ceil(samples * known / (units + 1)), samples)
