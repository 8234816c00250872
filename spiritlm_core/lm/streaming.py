"""Tokens as they come, as pieces of text and speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from spiritlm_core.lm.content import Segment, SpeechSegment, TextSegment

if TYPE_CHECKING:
    from spiritlm_core.lm.formats import PromptFormat

_INCOMPLETE = "\ufffd"  # what the first bytes of a character decode to


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
