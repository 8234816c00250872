"""Dynamic time warping of many pairs of short sequences at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FrameDistance = Callable[[NDArray[Any], NDArray[Any]], Floats]
"""Distances float64[P, N, M] between the frames of P pairs of padded sequences [P, N, ...] and [P, M, ...]."""

_CELLS = 400_000
"""Frame distances held at a time."""


def warp(distances: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """Mean frame distance along the cheapest path, float64[P] (Sakoe & Chiba 1978, steps (1,1), (1,0), (0,1)).

    The cost of the cheapest path from corner to corner is divided by its number of cells, as usual in ABX; among
    paths of equal cost the shorter one counts.

    Args:
        distances: float64[P, N, M], padded.
        rows: int64[P], length of the first sequence of each pair, 1 to N.
        columns: int64[P], length of the second.
    """
    pairs, height, width = distances.shape
    cost = np.full((height + 1, width + 1, pairs), np.inf)
    length = np.zeros((height + 1, width + 1, pairs))
    cost[0, 0] = 0.0
    for i in range(1, height + 1):
        for j in range(1, width + 1):
            cost[i, j], length[i, j] = _step(cost, length, i, j)
            cost[i, j] += distances[:, i - 1, j - 1]
    index = np.arange(pairs)
    total: Floats = cost[rows, columns, index] / length[rows, columns, index]
    return total


def _step(cost: Floats, length: Floats, i: int, j: int) -> tuple[Floats, Floats]:
    """Cheapest way into cell (i, j) and the cells it has with it; the shorter one on a tie."""
    best, cells = cost[i - 1, j - 1], length[i - 1, j - 1]
    for a, b in ((i - 1, j), (i, j - 1)):
        better = (cost[a, b] < best) | ((cost[a, b] == best) & (length[a, b] < cells))
        best, cells = np.where(better, cost[a, b], best), np.where(better, length[a, b], cells)
    return best, cells + 1


def pair_distances(sequences: Sequence[NDArray[Any]], pairs: NDArray[np.int64], distance: FrameDistance) -> Floats:
    """Warped distance of each pair, float64[P].

    Args:
        sequences: [N] or [N, D] each, at least one frame.
        pairs: int64[P, 2], indices into `sequences`.
        distance: Between frames.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    result = np.zeros(len(pairs))
    for batch in _batches(lengths[pairs]):
        first, second = pairs[batch].T
        frames = distance(_padded(sequences, first), _padded(sequences, second))
        result[batch] = warp(frames, lengths[first], lengths[second])
    return result


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of similar size together, as many as `_CELLS` allow."""
    order, start = np.lexsort((lengths[:, 1], lengths[:, 0])), 0
    while start < len(order):
        end = start + 1
        area = lengths[order[start]].copy()
        while end < len(order):
            area = np.maximum(area, lengths[order[end]])
            if (end + 1 - start) * area[0] * area[1] > _CELLS:
                break
            end += 1
        yield order[start:end]
        start = end


def _padded(sequences: Sequence[NDArray[Any]], chosen: NDArray[np.int64]) -> NDArray[Any]:
    longest = max(len(sequences[i]) for i in chosen)
    example = sequences[chosen[0]]
    padded = np.zeros((len(chosen), longest, *example.shape[1:]), example.dtype)
    for row, i in enumerate(chosen):
        padded[row, : len(sequences[i])] = sequences[i]
    return padded


def unequal(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """0 for equal units and 1 for others: half the squared distance of one-hot vectors."""
    different: Floats = (first[:, :, None] != second[:, None, :]).astype(np.float64)
    return different


def angular(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """Angle between feature vectors over pi, 0 to 1; vectors of length one are expected."""
    cosine = np.matmul(first.astype(np.float64), second.astype(np.float64).transpose(0, 2, 1))
    angle: Floats = np.arccos(np.clip(cosine, -1.0, 1.0)) / np.pi
    return angle
