"""Changes to a recording that leave its words alone: tempo, pitch, room and noise (Gat et al. 2022, arXiv 2209.15483).

Every function takes and gives float32[T] at 16 kHz, and draws what it draws from the generator it is given.
"""

from fractions import Fraction

import numpy as np
from scipy.signal import resample_poly

from spiritlm_core.audio.resample import add_noise, reverberate
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.speech.quantizers.config import AugmentConfig

_WINDOW, _HOP, _SEARCH = 640, 320, 160


def augment(waveform: Waveform, config: AugmentConfig, rng: np.random.Generator) -> tuple[Waveform, float]:
    """A changed copy and its tempo: second *t* of the copy was second *t* x tempo of the original."""
    tempo, semitones, seconds, snr, colour = _draw(config, rng)
    changed = stretch(waveform, tempo) if tempo != 1.0 else waveform
    changed = shift_pitch(changed, semitones) if semitones else changed
    changed = reverberate(changed, seconds, rng) if seconds else changed
    changed = add_noise(changed, snr, colour, rng) if snr is not None else changed
    return changed, tempo


def _draw(config: AugmentConfig, rng: np.random.Generator) -> tuple[float, float, float, float | None, float]:
    """Tempo, semitones, seconds of reverberation, signal-to-noise ratio and colour of the noise."""
    chosen = rng.random(4) < config.probability
    tempo = float(config.tempo ** rng.uniform(-1, 1)) if chosen[0] else 1.0
    semitones = float(rng.uniform(-1, 1)) * config.semitones if chosen[1] else 0.0
    seconds = float(rng.uniform(0.1, 1.0)) * config.reverberation if chosen[2] else 0.0
    snr = float(rng.uniform(*config.snr)) if chosen[3] else None
    return tempo, semitones, seconds, snr, float(rng.uniform(0, 2))


def stretch(waveform: Waveform, tempo: float) -> Waveform:
    """Play `tempo` times as fast at the same pitch, T / `tempo` samples: WSOLA (Verhelst & Roelands 1993).

    Windows are taken from where they continue best what is there already, at most `_SEARCH` samples from their place.
    """
    count = round(len(waveform) / tempo)
    source = np.pad(waveform, (_HOP + _SEARCH, 2 * _SEARCH + 3 * _WINDOW))
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    stretched = np.zeros(count + 3 * _WINDOW, np.float32)
    start = _SEARCH
    for place in range(0, count + 2 * _HOP, _HOP):
        if place:
            around = _HOP + min(round((place - _HOP) * tempo), len(waveform))
            following = source[start + _HOP : start + _HOP + _WINDOW]
            likeness = np.correlate(source[around : around + 2 * _SEARCH + _WINDOW], following, "valid")
            start = around + int(np.argmax(likeness))
        stretched[place : place + _WINDOW] += window * source[start : start + _WINDOW]
    return stretched[_HOP : _HOP + count]


def shift_pitch(waveform: Waveform, semitones: float) -> Waveform:
    """Raise the pitch at the same tempo, float32[T]: stretch, then resample back to the length there was."""
    ratio = Fraction(2.0 ** (semitones / 12)).limit_denominator(60)
    longer = stretch(waveform, float(1 / ratio))
    shifted = resample_poly(longer, ratio.denominator, ratio.numerator).astype(np.float32)[: len(waveform)]
    return np.pad(shifted, (0, len(waveform) - len(shifted)))
