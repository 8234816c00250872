"""Where an interleaved sequence changes between text and speech.

Spans alternate between the modalities, begin with either at random, and change only in front of words where that
is allowed. Their lengths in words follow one law for text and one for speech (arXiv 2402.05755, section 3.1).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from spiritlm_core.tokens.config import FixedLaw, PoissonLaw, SpanLaw
from spiritlm_core.tokens.counter import uniform, uniforms

_FEW = 10  # draws that are made one by one


@dataclass(frozen=True)
class Quantiles:
    """The inverse distribution function of a span law: of one draw, and of many (float64[N] to int64[N] words).

    Most recordings need few draws, some need thousands.
    """

    one: Callable[[float], int]
    many: Callable[[np.ndarray], np.ndarray]


def quantiles(law: SpanLaw) -> Quantiles:
    """The inverse distribution function of a span law."""
    if isinstance(law, FixedLaw):
        return Quantiles(lambda _: law.words, lambda u: np.full(len(u), law.words, dtype=np.int64))
    if isinstance(law, PoissonLaw):
        below = _poisson_cdf(law.mean - 1)
        listed = below.tolist()
        return Quantiles(lambda u: 1 + bisect_right(listed, u), lambda u: 1 + np.searchsorted(below, u, side="right"))
    first, width = law.minimum, law.maximum - law.minimum + 1
    return Quantiles(lambda u: first + int(u * width), lambda u: first + (u * width).astype(np.int64))


def _poisson_cdf(mean: float) -> np.ndarray:
    """P(X ≤ k) for k = 0, 1, … up to where nothing is left, float64[K]."""
    most = math.ceil(mean + 12 * math.sqrt(mean) + 20)
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(most)] if mean > 0 else [0.0]
    return np.cumsum(np.exp(logs))


def spans(can_switch: np.ndarray, text: Quantiles, speech: Quantiles, key: int) -> tuple[list[int], bool]:
    """Draw the spans of one run of words.

    A run too short for a second span is cut once at a random place, so that it shows both modalities; one without
    any place to switch, such as a single word, becomes one span.

    Args:
        can_switch: bool[W], whether the modality may change in front of each word.
        text: Law of text spans.
        speech: Law of speech spans.
        key: The 64-bit random key of the run.

    Returns:
        The first word of each span, from 0 on, and whether the first span is speech. They alternate.
    """
    speech_first = uniform(key, 0) < 0.5
    first, second = (speech, text) if speech_first else (text, speech)
    allowed = can_switch.tolist()
    starts = _starts(allowed, _lengths(first, second, key))
    if len(starts) == 1 and len(allowed) > 1:
        places = [place for place in range(1, len(allowed)) if allowed[place]]
        starts += places[(i := int(uniform(key, 1) * len(places))) : i + 1]
    return starts, speech_first


def _lengths(first: Quantiles, second: Quantiles, key: int) -> Iterator[int]:
    """Endless span lengths, `first` and `second` in turn, from the draws behind the first two of `key`."""
    drawn = 2
    while drawn < _FEW:
        yield first.one(uniform(key, drawn))
        yield second.one(uniform(key, drawn + 1))
        drawn += 2
    while True:
        u = uniforms(key, drawn, drawn * 4)
        for pair in zip(first.many(u[0::2]).tolist(), second.many(u[1::2]).tolist(), strict=True):
            yield from pair
        drawn += len(u)


def _starts(allowed: list[bool], lengths: Iterator[int]) -> list[int]:
    """Lay spans end to end; one that would end where no switch is allowed goes on to where it is."""
    words, allowed = len(allowed), [*allowed, True]
    starts, at = [0], next(lengths)
    while at < words and (at := allowed.index(True, at)) < words:
        starts.append(at)
        at += next(lengths)
    return starts
