"""A voice made of harmonics under moving formants: enough of speech for a voice activity detector."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RATE = 16_000
_CLEAR = (0, 2, 3)  # voices that the detector takes for speech from end to end
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240), (530, 1840, 2480))


@lru_cache(maxsize=64)
def voice(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """float32[T] of syllables without a pause, peak 0.5. Not to be written to: it is made once."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    syllables = max(2, round(seconds * 4)) + 1
    knots = np.linspace(0, seconds, syllables)
    vowels = np.array([_VOWELS[i] for i in rng.integers(0, len(_VOWELS), syllables)], float)
    formants = [np.interp(time, knots, vowels[:, i]) for i in range(3)]
    pitch = np.interp(time, knots, rng.uniform(95, 150, syllables))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = np.zeros(count)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        shapes = zip(formants, (80, 110, 160), (1, 0.6, 0.3), strict=True)
        gain = sum(g / (1 + ((frequency - f) / b) ** 2) for f, b, g in shapes)
        wave += gain * np.sin(harmonic * phase) * (frequency < rate / 2)
    loudness = 0.25 + 0.75 * np.abs(np.sin(np.pi * 4 * time)) ** 0.7
    wave = wave * loudness + 0.01 * rng.standard_normal(count)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def talk(seconds: float, seed: int = 0, phrase: float = 2.0, pause: float = 0.7) -> np.ndarray:
    """float32[T] of phrases with pauses between them, faint noise (drawn from `seed`) throughout."""
    rng = np.random.default_rng(seed)
    wave = (1e-3 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    at, number = pause / 2, 0
    while at + phrase < seconds:
        first = round(at * RATE)
        wave[first : first + round(phrase * RATE)] += voice(phrase, _CLEAR[number % len(_CLEAR)])
        at, number = at + phrase + pause * (1 + number % 3), number + 1
    return wave
