"""Where an interleaved sequence changes between text and speech.

Spans alternate between the modalities, begin with either at random, and change only in front of words where that
is allowed. Their lengths in words follow one law for text and one for speech (arXiv 2402.05755, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from spiritlm_core.tokens.config import FixedLaw, PoissonLaw, SpanLaw
from spiritlm_core.tokens.counter import uniforms

Quantiles = Callable[[np.ndarray], np.ndarray]
"""Uniform draws, float64[N], to span lengths in words, int64[N]."""


def quantiles(law: SpanLaw) -> Quantiles:
    """The inverse distribution function of a span law."""
    if isinstance(law, FixedLaw):
        return lambda u: np.full(len(u), law.words, dtype=np.int64)
    if isinstance(law, PoissonLaw):
        below = _poisson_cdf(law.mean - 1)
        return lambda u: 1 + np.searchsorted(below, u, side="right")
    width = law.maximum - law.minimum + 1
    return lambda u: law.minimum + (u * width).astype(np.int64)


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
    draws = uniforms(key, 0, 10)
    side, place = draws[:2].tolist()
    speech_first = side < 0.5
    laws = (speech, text) if speech_first else (text, speech)
    starts = _starts(can_switch, _lengths(*laws, key, draws))
    if len(starts) == 1 and len(can_switch) > 1:
        allowed = np.flatnonzero(can_switch[1:]) + 1
        starts += allowed[[int(place * len(allowed))]].tolist() if len(allowed) else []
    return starts, speech_first


def _lengths(first: Quantiles, second: Quantiles, key: int, draws: np.ndarray) -> Iterator[int]:
    """Endless span lengths, `first` and `second` in turn; `draws` are the first few of `key`, two already used."""
    u, drawn = draws[2:], len(draws)
    while True:
        for pair in zip(first(u[0::2]).tolist(), second(u[1::2]).tolist(), strict=True):
            yield from pair
        u = uniforms(key, drawn, drawn * 4)
        drawn += len(u)


def _starts(can_switch: np.ndarray, lengths: Iterator[int]) -> list[int]:
    """Lay spans end to end; one that would end where no switch is allowed goes on to where it is."""
    words = len(can_switch)
    landing = None if can_switch.all() else _next_allowed(can_switch)
    starts, at = [0], next(lengths)
    while at < words:
        if landing:
            at = landing[at]
            if at == words:
                break
        starts.append(at)
        at += next(lengths)
    return starts


def _next_allowed(can_switch: np.ndarray) -> list[int]:
    """For each word the first place, from it on, where a switch is allowed; W if there is none."""
    words = len(can_switch)
    places = np.where(can_switch, np.arange(words), words)
    return np.minimum.accumulate(places[::-1])[::-1].tolist()
