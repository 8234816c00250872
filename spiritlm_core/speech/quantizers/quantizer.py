"""Quantizers of an encoder's frames: what they have in common, and loading whichever a folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, Frames, KMeans, StoredQuantizer

if TYPE_CHECKING:
    import torch

LINEAR_FILE = "linear.safetensors"
MAPS = ("0", "2", "4")  # names of the affine maps; 1 and 3 are the LeakyReLUs between them

SLOPE = 0.01  # slope of the LeakyReLU below zero


@dataclass(frozen=True)
class LinearQuantizer(StoredQuantizer):
    """Affine, LeakyReLU, affine, LeakyReLU, affine, argmax; the last class is the blank."""

    weights: tuple[Frames, ...]  # [H1, D], [H2, H1], [K + 1, H2]
    biases: tuple[Frames, ...]  # [H1], [H2], [K + 1]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of unit ids that can come out: one more than units, because of a piece that is all blank."""
        return len(self.biases[-1])

    @property
    def width(self) -> int:
        """Features of a frame."""
        return int(self.weights[0].shape[1])

    @property
    def blank(self) -> int:
        """Class of the blank, the last one."""
        return self.size - 1

    def assign(self, frames: Frames) -> NDArray[np.int64]:
        """Units of one piece, int64[N], from float32[N, D], without blanks unless all of it is blank."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            frames = frames @ weight.T + bias
            frames = np.where(frames > 0, frames, np.float32(SLOPE) * frames)
        return self.resolve((frames @ self.weights[-1].T + self.biases[-1]).argmax(axis=1))

    @property
    def unit_vectors(self) -> Frames:
        """The weights of the last map, whose product with what is before it is a class score."""
        return self.weights[-1]

    def affine_maps(self) -> list[tuple[Frames, Frames]]:
        """Weights and biases of the maps."""
        return list(zip(self.weights, self.biases, strict=True))

    def resolve(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Units of one piece from its classes; see :func:`resolve_blanks`."""
        return resolve_blanks(classes, self.blank)

    def save(self, path: Path) -> None:
        """Write a safetensors file; `facts` go into its metadata as JSON."""
        arrays = {f"{name}.weight": array for name, array in zip(MAPS, self.weights, strict=True)}
        arrays |= {f"{name}.bias": array for name, array in zip(MAPS, self.biases, strict=True)}
        self.write(arrays, path)

    @classmethod
    def load(cls, path: Path) -> LinearQuantizer:
        """Read what :meth:`save` wrote.

        Raises ModelReferenceError: the file is missing, is not such a file, or its maps do not fit each other.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                weights, biases = ([file.get_tensor(f"{name}.{kind}") for name in MAPS] for kind in ("weight", "bias"))
                quantizer = cls(tuple(weights), tuple(biases), json.loads((file.metadata() or {})["facts"]))
                quantizer._check()
                return quantizer
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ModelReferenceError(f"{path} is not a linear quantizer of this project: {error}") from error

    def _check(self) -> None:
        sizes = [self.width, *(len(bias) for bias in self.biases)]
        shapes = [weight.shape for weight in self.weights]
        if shapes != [(sizes[i + 1], sizes[i]) for i in range(len(MAPS))] or self.layer < 1:
            raise ValueError(f"maps of shapes {shapes} do not follow each other")


def resolve_blanks(units: NDArray[np.int64], blank: int) -> NDArray[np.int64]:
    """Replace every blank of one piece by the unit before it.

    Blanks at the very start take the last unit of the piece, as if it were a ring (the released Spirit LM does so);
    a piece of nothing but blanks stays as it is.
    """
    at = np.flatnonzero(units != blank)
    if not len(at):
        return units
    latest = np.searchsorted(at, np.arange(len(units)), side="right") - 1  # -1, before the first: the last one
    return units[at[latest]]


Quantizer = KMeans | LinearQuantizer


def load_quantizer(folder: Path) -> Quantizer:
    """The quantizer in `folder`: ``linear.safetensors`` or ``kmeans.safetensors``.

    Raises ModelReferenceError: there is neither, both, or a damaged one.
    """
    linear, kmeans = folder / LINEAR_FILE, folder / QUANTIZER_FILE
    if linear.exists() and kmeans.exists():
        raise ModelReferenceError(f"{folder} holds both {LINEAR_FILE} and {QUANTIZER_FILE}: remove the wrong one")
    return LinearQuantizer.load(linear) if linear.exists() else KMeans.load(kmeans)


def classifier(quantizer: Quantizer, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Classes int64[N] of frames float32[N, D] of any number of pieces, computed on `device`."""
    import torch
    from torch.nn.functional import leaky_relu, linear

    maps = [tuple(torch.from_numpy(part).to(device) for part in pair) for pair in quantizer.affine_maps()]

    def classes(frames: torch.Tensor) -> torch.Tensor:
        for weight, bias in maps[:-1]:
            frames = leaky_relu(linear(frames, weight, bias), SLOPE)
        return linear(frames, *maps[-1]).argmax(dim=-1)

    return classes
