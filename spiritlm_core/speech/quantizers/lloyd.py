"""K-means on a GPU: k-means++ (Arthur & Vassilvitskii 2007) and Lloyd's iterations, with torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_BLOCK = 16_384
"""Frames whose distances to all centres are in memory at a time."""


def lloyd(
    frames: NDArray[np.float32], clusters: int, *, seed: int, restarts: int, iterations: int, device: str
) -> NDArray[np.float32]:
    """The best of several runs, float32[clusters, D]: least mean squared distance of `frames`, float32[N, D]."""
    points = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    runs = [_run(points, clusters, iterations, np.random.default_rng([seed, run])) for run in range(restarts)]
    centres: NDArray[np.float32] = min(runs, key=lambda run: run[1])[0].cpu().numpy()
    return centres


def _run(points: torch.Tensor, clusters: int, iterations: int, rng: np.random.Generator) -> tuple[torch.Tensor, float]:
    """Centres and their distortion, until nothing gets better by more than a ten-thousandth."""
    centres, distortion = _spread(points, clusters, rng), float("inf")
    for _ in range(iterations):
        nearest, distances = _assign(points, centres)
        before, distortion = distortion, float(distances.mean())
        if before - distortion <= 1e-4 * distortion:
            break
        centres = _means(points, nearest, distances, clusters)
    return centres, distortion


def _spread(points: torch.Tensor, clusters: int, rng: np.random.Generator) -> torch.Tensor:
    """k-means++: each start is a point drawn with probability proportional to its squared distance to the others."""
    chosen = [int(rng.integers(len(points)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(dim=1)
    while len(chosen) < clusters:
        total = nearest.double().cumsum(0)
        chosen.append(min(int(torch.searchsorted(total, rng.random() * total[-1])), len(points) - 1))
        nearest = torch.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(dim=1))
    return points[chosen]


def _assign(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest centre int64[N] and squared distance to it float32[N]."""
    norms = (centres**2).sum(dim=1)
    nearest = [(norms - 2 * block @ centres.T).min(dim=1) for block in torch.split(points, _BLOCK)]
    squares = (points**2).sum(dim=1)
    return torch.cat([f.indices for f in nearest]), (torch.cat([f.values for f in nearest]) + squares).clamp_min(0)


def _means(points: torch.Tensor, nearest: torch.Tensor, distances: torch.Tensor, clusters: int) -> torch.Tensor:
    """Mean of each cluster; an empty one moves to one of the points that are worst off."""
    counts = torch.bincount(nearest, minlength=clusters)
    order = nearest.argsort(stable=True)  # sums in a fixed order: scatter-add on a GPU has none
    sums = torch.segment_reduce(points[order], "sum", lengths=counts, initial=0.0)
    centres = sums / counts.clamp_min(1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    centres[empty] = points[distances.topk(len(empty)).indices]
    return centres
