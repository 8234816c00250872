"""How far units move when the recording changes and the words do not.

The unit edit distance of Gat et al. 2023 (arXiv 2209.15483, section 3.1): Levenshtein distance between the collapsed
units of a clip and of its changed copy. Here the sum over clips is divided by the number of collapsed units of the
originals (theirs by the number of frames), so that 1 means as many edits as there are units. Collapsing takes the
durations out, so a faster copy needs no other rescaling of time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.effects import limit_band
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.metrics.distances import Errors, collapse, edit_distance
from spiritlm_core.speech.grid import RATES_HZ
from spiritlm_core.speech.types import Units

Change = Callable[[Clip], Waveform]


def changes(snrs: Sequence[float], speeds: Sequence[float], seed: int) -> dict[str, Change]:
    """The conditions by name, such as ``noise 10 dB``, ``8 kHz`` and ``speed 0.9``."""
    noises = {f"noise {snr:g} dB": partial(_noisy, snr=snr, seed=seed) for snr in snrs}
    tempos = {f"speed {speed:g}": partial(_played, speed=speed) for speed in speeds}
    return {**noises, "8 kHz": _narrow, **tempos}


def _noisy(clip: Clip, snr: float, seed: int) -> Waveform:
    return add_noise(clip.waveform, snr, _rng(seed, clip.key))


def _narrow(clip: Clip) -> Waveform:
    return limit_band(clip.waveform, 8000)


def _played(clip: Clip, speed: float) -> Waveform:
    return play_at(clip.waveform, speed)


def _rng(seed: int, key: str) -> np.random.Generator:
    """Randomness that depends on seed and clip alone."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])])


def add_noise(waveform: Waveform, snr: float, rng: np.random.Generator) -> Waveform:
    """White Gaussian noise `snr` decibels below the mean power of float32[T]."""
    power = float(np.mean(waveform.astype(np.float64) ** 2)) / 10 ** (snr / 10)
    noisy: Waveform = (waveform + rng.normal(0.0, np.sqrt(power), len(waveform))).astype(np.float32)
    return noisy


def play_at(waveform: Waveform, speed: float) -> Waveform:
    """Play faster (`speed` above 1) or slower, as a tape does: length and pitch both change."""
    from scipy.signal import resample_poly

    ratio = Fraction(speed).limit_denominator(100)
    played: Waveform = resample_poly(waveform, ratio.denominator, ratio.numerator).astype(np.float32)
    return played


def distances(clean: Sequence[Units], changed: Sequence[Units]) -> dict[str, float | None]:
    """Unit edit distance of each stream that there is; None where the originals have no unit."""
    rates: dict[str, float | None] = {}
    for stream in RATES_HZ:
        pairs = [(getattr(a, stream), getattr(b, stream)) for a, b in zip(clean, changed, strict=True)]
        if any(a is None for a, _ in pairs):
            continue
        plain = [tuple(as_sent(stream, units) for units in pair) for pair in pairs]
        errors = Errors(tuple(edit_distance(a, b) for a, b in plain), tuple(len(a) for a, _ in plain))
        rates[stream] = round(errors.rate, 5) if sum(errors.length) else None
    return rates


def as_sent(stream: str, units: NDArray[np.integer]) -> list[int]:
    """A stream as the language model gets it: runs collapsed, but for style."""
    return units.tolist() if stream == "style" else collapse(units.tolist())


def robustness(
    encode: Callable[[Sequence[Waveform], Sequence[str | None]], list[Units]],
    clips: Sequence[Clip],
    clean: Mapping[str, Units],
    conditions: Mapping[str, Change],
) -> dict[str, dict[str, float | None]]:
    """Condition → stream → unit edit distance.

    Args:
        encode: The tokenizer.
        clips: Clips to change.
        clean: Units of the originals by utterance id.
        conditions: Name → change.
    """
    speakers = [clip.speaker for clip in clips]
    originals = [clean[clip.key] for clip in clips]
    return {
        name: distances(originals, encode([change(clip) for clip in clips], speakers))
        for name, change in conditions.items()
    }
