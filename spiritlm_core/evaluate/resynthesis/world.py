"""F0 of a waveform by FCPE, and its mel-cepstrum from the envelope of WORLD (Morise et al. 2016)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.pitch.f0 import melody

FRAME_SECONDS = 0.01
ORDER = 24
"""Coefficients of the mel-cepstrum, without the 0th, which is loudness."""

WARP = 0.42
"""All-pass constant that comes closest to the mel scale at 16 kHz (Tokuda et al. 1994)."""

_FLOOR = 1e-8  # of the highest power of a clip, -80 dB: what lies below is as good as silence
_SHORTEST = SAMPLE_RATE // 10  # FCPE and WORLD need some samples to look at

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Analysis:
    """One waveform at 100 Hz.

    Attributes:
        f0: float64[F] in hertz, 0 where unvoiced.
        cepstra: float64[F, 24], coefficients 1 to 24.
    """

    f0: Floats
    cepstra: Floats


def analyse(waveform: NDArray[np.float32]) -> Analysis:
    """F0 by FCPE, and the mel-cepstrum of WORLD's CheapTrick envelope, of float32[T] at 16 kHz, at most 100 s.

    FCPE is the tracker of the pitch units, too. Those of WORLD were tried: DIO calls a third of the voiced frames of
    Griffin-Lim speech unvoiced, Harvest calls unvoiced sounds voiced; neither is fair to speech with a rough phase.
    """
    samples = np.pad(waveform, (0, max(0, _SHORTEST - len(waveform))))
    track = melody(samples)
    f0 = np.where(track.voiced, track.f0, 0).astype(np.float64)
    times = np.arange(len(f0)) * FRAME_SECONDS
    return Analysis(f0, mel_cepstrum(_world().cheaptrick(samples.astype(np.float64), f0, times, SAMPLE_RATE)))


def mel_cepstrum(power: Floats) -> Floats:
    """Coefficients 1 to 24 of the mel-cepstrum, float64[F, 24], of power spectra float64[F, K] from 0 to 8 kHz.

    ``ln|H(w)| = sum_m c_m cos(m w')`` with the frequency w' that the all-pass filter makes of w (Tokuda et al. 1994,
    "Mel-generalized cepstral analysis"); the cosines are integrated over w' by the trapezoidal rule.
    """
    floor = _FLOOR * max(float(power.max()), np.finfo(np.float64).tiny / _FLOOR)
    cepstra: Floats = np.log(np.maximum(power, floor)) @ _cosines(power.shape[1])
    return cepstra


@cache
def _cosines(bins: int) -> Floats:
    """float64[K, 24]; ln of the power is twice ln|H|, the integral of cos² half of pi, so the weights are 1 / pi."""
    omega = np.linspace(0, np.pi, bins)
    warped = omega + 2 * np.arctan2(WARP * np.sin(omega), 1 - WARP * np.cos(omega))
    inner = np.concatenate([[warped[0]], (warped[1:] + warped[:-1]) / 2, [warped[-1]]])
    cosines: Floats = np.cos(np.outer(warped, np.arange(1, ORDER + 1))) * np.diff(inner)[:, None] / np.pi
    return cosines


@cache
def _world() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of pkg_resources is no concern of the user
        import pyworld
    return pyworld
