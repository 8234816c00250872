"""Tokens as they come, as pieces of text and speech."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from spiritlm_core.lm.generate.content import Segment, SpeechSegment, TextSegment

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.decode import Continuation, Step
    from spiritlm_core.lm.generate.formats import PromptFormat
    from spiritlm_core.lm.generate.prompts import Modality

_INCOMPLETE = "\ufffd"  # what the first bytes of a character decode to


def follow(
    layout: PromptFormat, prompt: Sequence[int], steps: Iterable[Step], modality: Modality
) -> Generator[Segment, None, Continuation]:
    """What each step of one prompt adds; the first piece says which speech of the prompt it goes on with.

    Returns:
        All of it.
    """
    from spiritlm_core.lm.generate.decode import Continuation

    new = Continuation()

    def tokens() -> Iterator[int]:
        for step in steps:
            new.take(step)
            if step.token is not None:
                yield step.token

    coming = pieces(layout, tokens())
    for first in coming:
        yield _opening(first, layout.read(prompt, new.ids, modality))
        yield from coming
    return new


def _opening(first: Segment, read: Sequence[Segment]) -> Segment:
    """The first piece as :meth:`PromptFormat.read` knows it, which sees the prompt."""
    known = next(iter(read), None)
    if not (isinstance(first, SpeechSegment) and isinstance(known, SpeechSegment)):
        return first
    return replace(first, continues=known.continues)


def pieces(layout: PromptFormat, ids: Iterable[int]) -> Iterator[Segment]:
    """What each id adds; an id that ends within a character adds nothing until the character is whole."""
    vocabulary = layout.vocabulary
    text: list[int] = []
    shown = 0
    for token in ids:
        if token < vocabulary.text_size:
            text.append(token)
            so_far = layout.text(text)
            if not so_far.endswith(_INCOMPLETE) and len(so_far) > shown:
                yield TextSegment(so_far[shown:])
                shown = len(so_far)
            continue
        yield from _rest(layout, text, shown)
        text, shown = [], 0
        if token > vocabulary.speech_marker:
            yield SpeechSegment(layout.tokens([token]))
    yield from _rest(layout, text, shown)


def _rest(layout: PromptFormat, text: list[int], shown: int) -> Iterator[Segment]:
    if rest := layout.text(text)[shown:]:
        yield TextSegment(rest)
