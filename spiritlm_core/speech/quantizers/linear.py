"""A linear quantizer: three affine maps to unit classes, one of which is a blank.

The noise-robust quantizer of Gat et al. 2023 (arXiv 2209.15483), which is trained with a CTC loss and hence has a
class for "nothing new here"; the released Spirit LM has one with 500 units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.quantizers.kmeans import StoredQuantizer

Frames = NDArray[np.float32]

LINEAR_FILE = "linear.safetensors"
MAPS = ("0", "2", "4")
"""Names of the affine maps; 1 and 3 are the LeakyReLUs between them."""

SLOPE = 0.01
"""Slope of the LeakyReLU below zero."""

_BLOCK = 65_536


@dataclass(frozen=True)
class LinearQuantizer(StoredQuantizer):
    """Affine, LeakyReLU, affine, LeakyReLU, affine, argmax; the last class is the blank."""

    weights: tuple[Frames, Frames, Frames]  # [H1, D], [H2, H1], [K + 1, H2]
    biases: tuple[Frames, Frames, Frames]  # [H1], [H2], [K + 1]
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

    def logits(self, frames: Frames) -> Frames:
        """Class scores float32[N, K + 1] of float32[N, D]."""
        hidden = frames
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = hidden @ weight.T + bias
            hidden = np.where(hidden > 0, hidden, np.float32(SLOPE) * hidden)
        scores: Frames = hidden @ self.weights[-1].T + self.biases[-1]
        return scores

    def assign(self, frames: Frames) -> NDArray[np.int64]:
        """Units of one piece, int64[N], from float32[N, D], without blanks unless all of it is blank."""
        blocks = [self.logits(frames[i : i + _BLOCK]).argmax(axis=1) for i in range(0, len(frames), _BLOCK)]
        return resolve_blanks(np.concatenate([np.zeros(0, np.int64), *blocks]), self.blank)

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

        Raises:
            ModelReferenceError: The file is missing, is not such a file, or its maps do not fit each other.
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
