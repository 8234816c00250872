"""What happens to speech on its way: a room, noise, a telephone, a distance.

Every function takes and gives float32[T] at 16 kHz, and draws what it draws from the generator it is given.
"""

from __future__ import annotations

import math

import numpy as np

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.lake.schema import SAMPLE_RATE

_SILENCE = 1e-8  # least mean power against which noise is measured
_PEAK = 0.98  # of full scale


def reverberate(waveform: Waveform, seconds: float, rng: np.random.Generator) -> Waveform:
    """A room whose sound falls by 60 dB in `seconds`: noise that decays exponentially, 0 to 12 dB below the voice."""
    from scipy.signal import fftconvolve

    time = np.arange(1, round(seconds * SAMPLE_RATE) + 1) / SAMPLE_RATE
    tail = rng.normal(size=len(time)) * 10.0 ** (-3 * time / seconds)
    tail *= 10 ** (-rng.uniform(0, 12) / 20) / np.sqrt((tail**2).sum())
    echo = fftconvolve(waveform, np.concatenate([[0.0], tail]))[: len(waveform)]
    echoed: Waveform = (waveform + echo).astype(np.float32)
    return echoed


def add_noise(waveform: Waveform, snr: float, colour: float, rng: np.random.Generator) -> Waveform:
    """Noise with power 1 / frequency ** `colour` (0 white, 1 pink, 2 brown), `snr` decibels below the mean power."""
    spectrum = np.fft.rfft(rng.normal(size=len(waveform)))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1 + 50 * len(waveform) // SAMPLE_RATE) ** (-colour / 2)
    noise = np.fft.irfft(spectrum, len(waveform))
    power = max(float(np.mean(waveform.astype(np.float64) ** 2)), _SILENCE) / 10 ** (snr / 10)
    noisy: Waveform = (waveform + noise * np.sqrt(power / np.mean(noise**2))).astype(np.float32)
    return noisy


def limit_band(waveform: Waveform, rate: int) -> Waveform:
    """Down to `rate` hertz and back to 16 kHz: nothing above half of it is left of float32[T]."""
    from scipy.signal import resample_poly

    shared = math.gcd(rate, SAMPLE_RATE)
    low, high = rate // shared, SAMPLE_RATE // shared
    back: Waveform = resample_poly(resample_poly(waveform, low, high), high, low)[: len(waveform)].astype(np.float32)
    return back


def at_loudness(waveform: Waveform, dbfs: float) -> Waveform:
    """float32[T] at a mean level of `dbfs` decibels of full scale, or as near to it as the peak allows."""
    level, peak = math.sqrt(float(np.mean(waveform.astype(np.float64) ** 2))), float(np.max(np.abs(waveform)))
    if not peak:
        return waveform
    louder: Waveform = waveform * np.float32(min(10 ** (dbfs / 20) / level, _PEAK / peak))
    return louder
