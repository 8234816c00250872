"""How far a resynthesised clip is from the recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.evaluate.resynthesis.world import Analysis, Floats

_DECIBEL = 10 / np.log(10) * np.sqrt(2)
_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2


@dataclass(frozen=True)
class Distance:
    """Sums over the frames of one clip.

    Attributes:
        mcd: Mel-cepstral distortion in dB along the cheapest warping path, mean over the path.
        mcd_in_place: The same frame by frame; None where durations were not kept.
        squared_cents: Sum of squared F0 differences in cents over the frames voiced in both.
        voiced: Number of these frames.
        wrong_voicing: Number of frames voiced in one of them only.
        frames: Number of frames that were compared.
    """

    mcd: float
    mcd_in_place: float | None
    squared_cents: float
    voiced: int
    wrong_voicing: int
    frames: int


def compare(original: Analysis, other: Analysis, *, timed: bool) -> Distance:
    """Compare two renderings of one clip.

    Args:
        original: The recording.
        other: What was made of it.
        timed: Whether `other` kept the durations. Then frames are paired one by one as far as both go; otherwise F0
            and voicing are compared along the warping path, too.
    """
    distances = distortions(original.cepstra, other.cepstra)
    path = warping_path(distances)
    common = np.arange(min(distances.shape))
    pairs = np.stack([common, common], axis=1) if timed else path
    first, second = original.f0[pairs[:, 0]], other.f0[pairs[:, 1]]
    both = (first > 0) & (second > 0)
    cents = 1200 * np.log2(second[both] / first[both])
    return Distance(
        mcd=float(distances[path[:, 0], path[:, 1]].mean()),
        mcd_in_place=float(distances[common, common].mean()) if timed else None,
        squared_cents=float((cents**2).sum()),
        voiced=int(both.sum()),
        wrong_voicing=int(((first > 0) != (second > 0)).sum()),
        frames=len(pairs),
    )


def distortions(first: Floats, second: Floats) -> Floats:
    """Mel-cepstral distortion in dB of every pair of frames, float64[N, M].

    ``10 / ln 10 * sqrt(2 * sum_i (c_i - c'_i)**2)`` (Kubichek 1993, "Mel-cepstral distance measure for objective
    speech quality assessment").
    """
    from scipy.spatial.distance import cdist

    distances: Floats = _DECIBEL * cdist(first, second)
    return distances


def warping_path(distances: Floats) -> NDArray[np.int64]:
    """The cheapest path from corner to corner (Sakoe & Chiba 1978, steps (1,1), (1,0), (0,1)), int64[P, 2].

    Computed by anti-diagonals, all cells of one at once; on a tie the diagonal step is taken.

    Args:
        distances: float64[N, M], N and M at least 1.
    """
    height, width = distances.shape
    steps = np.zeros((height + width - 1, height), np.uint8)
    before = np.full(height + 1, np.inf)  # cost of row i at [i + 1] on the anti-diagonal before the last one
    last = np.full(height + 1, np.inf)
    before[0] = 0.0  # what the first cell comes from
    for k in range(height + width - 1):
        rows = np.arange(max(0, k - width + 1), min(k, height - 1) + 1)
        ways = np.stack([before[rows], last[rows], last[rows + 1]])
        steps[k, rows] = best = ways.argmin(axis=0)
        current = np.full(height + 1, np.inf)
        current[rows + 1] = ways[best, np.arange(len(rows))] + distances[rows, k - rows]
        before, last = last, current
    return _walked_back(steps, height - 1, width - 1)


def _walked_back(steps: NDArray[np.uint8], i: int, j: int) -> NDArray[np.int64]:
    path = [(i, j)]
    while i or j:
        step = steps[i + j, i]
        i, j = i - (step in (_DIAGONAL, _DOWN)), j - (step in (_DIAGONAL, _RIGHT))
        path.append((i, j))
    return np.array(path[::-1], np.int64)
