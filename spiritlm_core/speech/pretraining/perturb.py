"""What HuBERT hears in training: crops as another voice, room or microphone would give them (see `PerturbConfig`)."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.speech.pretraining.config import PerturbConfig

_POINTS = 8
_GAIN = 6.0
_SILENCE = 1e-4


def draw_speed(config: PerturbConfig | None, rng: np.random.Generator) -> float:
    """How many times faster than recorded a crop is played; 1 without perturbation."""
    return float(config.speed ** rng.uniform(-1, 1)) if config else 1.0


def source_length(samples: int, speed: float) -> int:
    """Recorded samples needed for `samples` at `speed`."""
    return ceil(samples * speed) + 1


def play(source: Waveform, speed: float, samples: int) -> Waveform:
    """`source` at `speed`, float32[samples], by linear interpolation: pitch, formants and tempo all change."""
    if speed == 1.0:
        return source[:samples]
    places = np.arange(samples) * speed
    played: Waveform = np.interp(places, np.arange(len(source)), source).astype(np.float32)
    return played


def colour(waveform: Waveform, deviation: float, rng: np.random.Generator) -> Waveform:
    """Random gain over frequency, linear in decibels between eight points from 0 to 8 kHz."""
    spectrum = rfft(waveform)
    coloured: Waveform = irfft(spectrum * _curve(len(spectrum), deviation, rng), len(waveform))
    return coloured


def noise(samples: int, rng: np.random.Generator) -> Waveform:
    """Stationary noise of a random spectrum, float32[samples]."""
    return colour(rng.standard_normal(samples, np.float32), 8.0, rng)


def mix(waveform: Waveform, other: Waveform, snr: float) -> Waveform:
    """Add `other`, scaled to `snr` decibels below the mean power of `waveform`."""
    gain = _rms(waveform) / _rms(other) * 10 ** (-snr / 20)
    return waveform + np.float32(gain) * other


def gain(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Up to 6 dB louder or softer."""
    return waveform * np.float32(10 ** (rng.uniform(-_GAIN, _GAIN) / 20))


def _curve(bins: int, deviation: float, rng: np.random.Generator) -> NDArray[np.float32]:
    decibels = np.interp(np.linspace(0, _POINTS - 1, bins), np.arange(_POINTS), rng.normal(0, deviation, _POINTS))
    return np.asarray(10 ** (decibels / 20), np.float32)


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) + _SILENCE
