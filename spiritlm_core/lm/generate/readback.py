"""Reading a string of text and speech tokens back into segments, as the released models do.

The rules are those of the released implementation (arXiv 2402.05755), told apart by what a string looks like:
``[Hu…``, ``[Pi…`` and ``[St…`` up to the next ``]`` are speech, the markers vanish, all else is text.
"""

from __future__ import annotations

import math
import re

from spiritlm_core.lm.generate.prompts import Kind, Modality

SHORTEST = 24
"""HuBERT tokens, about a second: shorter speech between other things is not worth hearing."""

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
    """The parts of a continuation.

    Args:
        prompt: what the model was given, as a string.
        continuation: what it added.
        modality: that was asked for; ``any`` splits, the others give one part.

    Returns:
        The parts, and the speech tokens at the end of the prompt that the first part goes on with (then it begins
        with them), or "".
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

    Returns:
        None if it is too short to be heard: less than 24 new HuBERT tokens, unless it opens the answer anew or speech
        was asked for.
    """
    units, known = tokens.count("[Hu"), continues.count("[Hu")
    if not asked and units - known < SHORTEST and (continues or not first):
        return None
    return range(math.ceil(samples * known / (units + 1)), samples)
