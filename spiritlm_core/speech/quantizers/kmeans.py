"""K-means: fitting with scikit-learn, storage as safetensors, assignment with numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.speech.grid import SAMPLE_RATE


class StoredQuantizer:
    """A quantizer with `facts`, which say what it was fitted on: `layer`, and `rate` where that is not 25."""

    facts: dict[str, Any]

    @property
    def layer(self) -> int:
        """Layer of the encoder, counted from 1, whose features are quantized."""
        return int(self.facts["layer"])

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return int(SAMPLE_RATE / self.facts.get("rate", 25.0))

    def write(self, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
        """Write a safetensors file of float32 arrays; `facts` go into its metadata as JSON."""
        from safetensors.numpy import save_file

        plain = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
        save_file(plain, path, metadata={"facts": json.dumps(self.facts, sort_keys=True)})


Frames = NDArray[np.float32]
Projecting = Callable[[Frames], Frames]

QUANTIZER_FILE = "kmeans.safetensors"
_MINI_BATCH = 4096
_BLOCK = 65_536  # rows assigned at a time, so that the distances of an hour of speech need not fit into memory at once


@dataclass(frozen=True)
class KMeans(StoredQuantizer):
    """Cluster centres, with a few facts about their origin.

    Features lose `mean`, are divided by `scale` and, where there is a `projection`, multiplied by it.
    """

    centres: Frames  # [K, D], or [K, P] where there is a projection
    mean: Frames  # [D]
    scale: Frames  # [D]
    facts: dict[str, Any] = field(default_factory=dict)
    projection: Frames | None = None  # [D, P]

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.centres)

    @property
    def width(self) -> int:
        """Features of a frame."""
        return len(self.mean)

    @property
    def unit_vectors(self) -> Frames:
        """The cluster centres."""
        return self.centres

    def assign(self, frames: Frames) -> NDArray[np.int64]:
        """Index of the nearest centre for each row of float32[N, D]; the first one on a tie."""
        half_norms = (self.centres**2).sum(axis=1) / 2
        blocks = [self.seen(frames[i : i + _BLOCK]) for i in range(0, len(frames), _BLOCK)]
        indices = [np.argmax(block @ self.centres.T - half_norms, axis=1) for block in blocks]
        return np.concatenate([np.zeros(0, np.int64), *indices])

    def seen(self, frames: Frames) -> Frames:
        """Features float32[N, D] in the space of the centres, float32[N, D] or [N, P]."""
        shifted: Frames = (frames - self.mean) / self.scale
        return shifted if self.projection is None else shifted @ self.projection

    def affine_maps(self) -> list[tuple[Frames, Frames]]:
        """One map whose greatest output is the nearest centre: ``x c - |c|^2 / 2`` for ``x`` in the centres' space."""
        centres = self.centres.astype(np.float64)
        weight = (centres if self.projection is None else centres @ self.projection.T) / self.scale
        bias = -(self.centres.astype(np.float64) ** 2).sum(axis=1) / 2 - weight @ self.mean
        return [(weight.astype(np.float32), bias.astype(np.float32))]

    def resolve(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes are units."""
        return classes

    def distortion(self, frames: Frames) -> float:
        """Mean squared distance of frames to their centre, as a share of their variance, in the centres' space."""
        seen = self.seen(frames)
        return float(((seen - self.centres[self.assign(frames)]) ** 2).sum() / ((seen - seen.mean(axis=0)) ** 2).sum())

    def save(self, path: Path) -> None:
        """Write a safetensors file; `facts` go into its metadata as JSON."""
        projection = {} if self.projection is None else {"projection": self.projection}
        self.write({"centres": self.centres, "mean": self.mean, "scale": self.scale, **projection}, path)

    @classmethod
    def load(cls, path: Path) -> KMeans:
        """Read what :meth:`save` wrote. Raises ModelReferenceError: the file is missing or is not such a file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                there = {"projection"} & set(file.keys())
                arrays = {name: file.get_tensor(name) for name in ("centres", "mean", "scale", *there)}
                return cls(**arrays, facts=json.loads((file.metadata() or {})["facts"]))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise ModelReferenceError(f"{path} is not a k-means file of this project: {error}") from error


def fit_kmeans(
    frames: Frames,
    clusters: int,
    *,
    seed: int,
    restarts: int = 3,
    iterations: int = 100,
    normalize: bool = False,
    project: Projecting | None = None,
    facts: dict[str, Any] | None = None,
) -> KMeans:
    """K-means in mini-batches (Sculley 2010) from k-means++ starts (Arthur & Vassilvitskii 2007) on float32[N, D].

    `project`, given the frames as they are clustered, returns float32[D, P], by which they are multiplied before.
    Raises RecipeError: there are fewer frames than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(frames) < clusters:
        raise RecipeError(f"{clusters} clusters want at least as many frames, but the train split has {len(frames)}")
    mean = frames.mean(axis=0) if normalize else np.zeros(frames.shape[1], np.float32)
    scale = frames.std(axis=0) + 1e-5 if normalize else np.ones(frames.shape[1], np.float32)
    model = MiniBatchKMeans(
        clusters,
        random_state=seed,
        n_init=restarts,
        batch_size=_MINI_BATCH,
        max_iter=iterations,
        reassignment_ratio=0.01,
    )
    seen = (frames - mean) / scale
    projection = project(seen) if project else None
    centres = model.fit(seen if projection is None else seen @ projection).cluster_centers_.astype(np.float32)
    return KMeans(centres, mean.astype(np.float32), scale.astype(np.float32), facts or {}, projection)
