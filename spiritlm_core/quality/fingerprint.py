"""Audio fingerprints, and the recordings that share one: the same sound re-encoded, at another level, cut or padded.

Haitsma and Kalker 2002 ("A highly robust audio fingerprinting system"): 32 bits every 16 ms say which of 33 bands
gained energy over its neighbour. Two takes of one sentence differ in nearly half of the bits, two encodings in few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.lake.schema import SAMPLE_RATE

WINDOW, HOP = 4096, 256  # samples of a frame, and from one to the next: 256 ms and 16 ms
_BANDS, _LOWEST, _HIGHEST = 33, 300.0, 3000.0
_AT_ONCE = 32  # frames: what the caches of a core hold
_MOST_SHARED = 32
"""Clips of one value that each is compared with: what more of them hold, such as silence and hum, says little."""

_LEAST = 32  # values, three quarters of a second, that must lie on each other: fewer agree by chance
Print = NDArray[np.uint32]


def spectra(waveform: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Energy of each frame in each band, float32[N, 33], and of all frames at each frequency, float32[2049].

    The waveform is float32[T] at 16 kHz; frames lie under Hann windows, and a short clip is padded to one. The energy
    at a frequency is the sum of the squares of a real and an imaginary part, which are added up as they lie.
    """
    from scipy.fft import rfft

    padded = np.pad(waveform, (0, max(0, WINDOW + HOP - len(waveform))))
    frames, window = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP], np.hanning(WINDOW)
    energies, total = np.empty((len(frames), _BANDS), np.float32), np.zeros(WINDOW + 2, np.float32)
    edges = 2 * _edges()
    for first in range(0, len(frames), _AT_ONCE):
        squares = rfft(frames[first : first + _AT_ONCE] * window.astype(np.float32)).view(np.float32)
        squares *= squares
        np.add.reduceat(squares[:, : edges[-1]], edges[:-1], axis=1, out=energies[first : first + _AT_ONCE])
        total += squares.sum(axis=0)
    return energies, total.reshape(-1, 2).sum(axis=1)


def fingerprint(energies: NDArray[np.float32]) -> Print:
    """uint32[N - 1] of the energies of bands, float32[N, 33].

    Bit m of frame n is set where ``E(n, m) - E(n, m + 1) > E(n - 1, m) - E(n - 1, m + 1)`` (equation 1).
    """
    gained = np.diff(-np.diff(energies, axis=1), axis=0) > 0
    return np.packbits(gained, axis=1, bitorder="little").view(np.uint32).reshape(-1)


@cache
def _edges() -> NDArray[np.int64]:
    """First bin of each band, and the one after the last."""
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1)
    return np.rint(edges * WINDOW / SAMPLE_RATE).astype(np.int64)


@dataclass(frozen=True)
class Match:
    """Two clips that sound alike where one is laid over the other."""

    first: int  # place of one of them among the prints
    second: int  # place of the other
    overlap: float  # how much of the shorter one lies on the other, 0 to 1
    errors: float  # share of the bits that differ there
    values: int  # how many values lie on each other, one every 16 ms


def matches(prints: Sequence[Print]) -> Iterator[Match]:
    """Pairs of clips that hold a value in common, laid over each other in every way in which one meets."""
    lengths = np.array([len(each) for each in prints])
    for first, second, shift in _candidates(prints):
        low, high = max(0, shift), min(lengths[first], lengths[second] + shift)
        if high - low < _LEAST:
            continue
        differing = prints[first][low:high] ^ prints[second][low - shift : high - shift]
        overlap = (high - low) / min(lengths[first], lengths[second])
        yield Match(first, second, overlap, float(np.unpackbits(differing.view(np.uint8)).mean()), high - low)


def _candidates(prints: Sequence[Print]) -> list[tuple[int, int, int]]:
    """Places of two clips that hold the same value, and how much later it stands in the first, each once."""
    values = np.concatenate([*prints, np.zeros(0, np.uint32)])
    lengths = np.array([len(each) for each in prints], np.int64)
    owners = np.repeat(np.arange(len(prints)), lengths)
    places = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = np.lexsort((owners, values))
    order = order[values[order] != 0]  # digital silence
    values, owners, places = values[order], owners[order], places[order]
    found = [np.zeros((3, 0), np.int64)]
    for lag in range(1, _MOST_SHARED):
        same = np.flatnonzero((values[lag:] == values[:-lag]) & (owners[lag:] != owners[:-lag]))
        found.append(np.stack([owners[same], owners[same + lag], places[same] - places[same + lag]]))
    return [tuple(each) for each in np.unique(np.concatenate(found, axis=1), axis=1).T.tolist()]
