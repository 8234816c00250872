"""Quantizers of an encoder's frames: what they have in common, and loading whichever a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, KMeans
from spiritlm_core.speech.quantizers.linear import LINEAR_FILE, SLOPE, LinearQuantizer

if TYPE_CHECKING:
    import torch


class Quantizer(Protocol):
    """Turns frames of one layer of an encoder into units."""

    @property
    def layer(self) -> int:
        """Layer of the encoder, counted from 1."""

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""

    @property
    def size(self) -> int:
        """Number of unit ids that can come out."""

    @property
    def width(self) -> int:
        """Features of a frame."""

    @property
    def unit_vectors(self) -> NDArray[np.float32]:
        """A vector for each unit, float32[size, features]: units that sound alike have similar ones."""

    def affine_maps(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights [out, in] and biases [out] of maps, LeakyReLU between them, whose greatest output is the class."""

    def resolve(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Units int64[N] from the classes of one piece."""

    def assign(self, frames: NDArray[np.float32]) -> NDArray[np.int64]:
        """Units int64[N] of the frames float32[N, D] of one piece."""


def load_quantizer(folder: Path) -> Quantizer:
    """The quantizer in `folder`: ``linear.safetensors`` or ``kmeans.safetensors``.

    Raises:
        ModelReferenceError: There is neither, both, or a damaged one.
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
