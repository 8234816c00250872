"""Pitch units: a vector-quantised autoencoder of F0 and voicing, one code per 80 ms.

The encoder, quantizer and decoder of the F0 VQ-VAE of Polyak et al. 2021 (arXiv 2104.00355), whose parts come
from Jukebox (Dhariwal et al. 2020, arXiv 2005.00341): strided convolutions with residual blocks, and a codebook
of moving averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A).
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spiritlm_core.speech.pitch.config import PITCH_HOP, PitchArchitecture, PitchBlocks
from spiritlm_core.speech.pitch.f0 import Melody

_REFERENCE = 200.0


def contour(melody: Melody, samples: int, model: PitchArchitecture) -> NDArray[np.float32]:
    """Input of the VQ-VAE, float32[2, 16 M] at 200 Hz,, ``M = (samples // 80 + 1) // 16``.

    Channel 0 is F0 as the `model` takes it, channel 1 is 1 where voiced; without a voiced frame both are zero. Where a
    model is not `trimmed`, there are up to 15 frames more, which the convolutions of the last unit see.
    """
    f0, voiced = melody.stretched(samples)
    level = np.zeros(len(f0), np.float32)
    if voiced.any():
        level = np.log2(f0 / _REFERENCE) if model.scale == "octaves" else f0.copy()
        level -= level[voiced].mean() if model.relative else 0.0
        level = level if model.interpolated else np.where(voiced, level, 0.0)
    whole = len(f0) // PITCH_HOP * PITCH_HOP if model.trimmed else None
    return np.stack([level, voiced]).astype(np.float32)[:, :whole]


class Residual(nn.Module):
    """``x + scale * conv1(relu(conv3(relu(x))))`` with dilation."""

    def __init__(self, width: int, inner: int, dilation: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        wide = nn.Conv1d(width, inner, 3, padding=dilation, dilation=dilation)
        self.layers = nn.Sequential(nn.ReLU(), wide, nn.ReLU(), nn.Conv1d(inner, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape is kept: float32[B, width, F]."""
        return x + self.scale * self.layers(x)


class PitchCoder(nn.Module):
    """VQ-VAE from float32[B, 2, 16 M] (or up to 15 frames more) to int64[B, M] and back."""

    codebook: torch.Tensor

    def __init__(self, config: PitchArchitecture) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config.encoder, config.embedding * (2 if config.folded else 1))
        self.decoder = _decoder(config.decoder, config.embedding, config.tail or config.decoder.width)
        self.register_buffer("codebook", torch.zeros(config.codes, config.embedding))

    def contour(self, melody: Melody, samples: int) -> NDArray[np.float32]:
        """The input of this model; see :func:`contour`."""
        return contour(melody, samples, self.config)

    def embed(self, contours: torch.Tensor) -> torch.Tensor:
        """Encoder output, float32[B, M, embedding]."""
        embedded: torch.Tensor = self.encoder(contours).transpose(1, 2)
        if not self.config.folded:
            return embedded
        first, second = embedded.chunk(2, dim=-1)
        return first + second

    def nearest(self, embedded: torch.Tensor) -> torch.Tensor:
        """Index of the nearest code by squared distance, int64[...]; the first one on a tie."""
        scores = embedded @ self.codebook.T - (self.codebook**2).sum(dim=1) / 2
        return scores.argmax(dim=-1)

    def decode(self, embedded: torch.Tensor) -> torch.Tensor:
        """F0 in the model's scale and voicing logits, float32[B, 2, 16 M], from float32[B, M, embedding]."""
        return self.decoder(embedded.transpose(1, 2))

    @torch.inference_mode()
    def encode(self, contours: NDArray[np.float32]) -> NDArray[np.int8]:
        """Units int8[M] of one contour float32[2, 16 M], or up to 15 frames longer."""
        if contours.shape[1] < PITCH_HOP:
            return np.zeros(0, np.int8)
        units = self.nearest(self.embed(torch.from_numpy(contours)[None].to(self.codebook.device)))
        return units[0].cpu().numpy().astype(np.int8)

    @torch.inference_mode()
    def reconstruct(self, units: NDArray[np.int8]) -> NDArray[np.float32]:
        """F0 in the model's scale and voicing, float32[2, 16 M], from units int8[M].

        Voicing is a probability in models of this project; a released model was fitted on other losses.
        """
        index = torch.from_numpy(units.astype(np.int64)).to(self.codebook.device)
        octaves, voicing = self.decode(self.codebook[index][None])[0]
        return torch.stack([octaves, voicing.sigmoid()]).cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write it into `folder`."""
        self.config.save(self, folder)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> PitchCoder:
        """Read what :meth:`save` wrote. Raises ModelReferenceError: the folder does not hold such a model."""
        return PitchArchitecture.load(folder, cls, device)


def _encoder(blocks: PitchBlocks, channels: int) -> nn.Sequential:
    """Each stage is a strided convolution and residual blocks; then one convolution to `channels`."""
    widths = [2] + [blocks.width] * len(blocks.strides)
    stages = [
        nn.Sequential(nn.Conv1d(a, b, *_window(stride)), *_residuals(blocks))
        for (a, b), stride in zip(pairwise(widths), blocks.strides, strict=True)
    ]
    return nn.Sequential(*stages, nn.Conv1d(blocks.width, channels, 3, padding=1))


def _decoder(blocks: PitchBlocks, channels: int, tail: int) -> nn.Sequential:
    """The encoder backwards, from `channels`; the last stage ends in `tail`, one more convolution in F0 and voicing."""
    widths = [blocks.width] * (len(blocks.strides) - 1) + [tail]
    stages = [
        nn.Sequential(*_residuals(blocks), nn.ConvTranspose1d(blocks.width, width, *_window(stride)))
        for width, stride in zip(widths, reversed(blocks.strides), strict=True)
    ]
    start = nn.Conv1d(channels, blocks.width, 3, padding=1)
    return nn.Sequential(start, *stages, nn.Conv1d(tail, 2, 3, padding=1))


def _window(stride: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that divide a length by `stride` exactly."""
    return 2 * stride + stride % 2, stride, stride // 2 + stride % 2


def _residuals(blocks: PitchBlocks) -> list[Residual]:
    inner, scale = int(blocks.expansion * blocks.width), 1 / sqrt(max(1, blocks.depth)) if blocks.scaled else 1.0
    return [Residual(blocks.width, inner, dilation, scale) for dilation in blocks.dilations]
