"""Pitch units: a vector-quantised autoencoder of F0 and voicing, one code per 80 ms.

The encoder, quantizer and decoder of the F0 VQ-VAE of Polyak et al. 2021 (arXiv 2104.00355), whose parts come
from Jukebox (Dhariwal et al. 2020, arXiv 2005.00341): strided convolutions with residual blocks, and a codebook
of moving averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A).
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.units.config import PitchConfig
from spiritlm_core.units.f0 import Melody

HOP = 16
"""Frames of 5 ms in one code."""

_REFERENCE = 200.0
_STAGES = 4


def contour(melody: Melody, samples: int, *, normalize: bool) -> NDArray[np.float32]:
    """Input of the VQ-VAE, float32[2, 16 M] at 200 Hz, ``M = (samples // 80 + 1) // 16``.

    Channel 0 is F0 in octaves, above the mean of the voiced frames of this piece (`normalize`) or above 200 Hz;
    channel 1 is 1 where voiced. Without a voiced frame both are zero.
    """
    f0, voiced = melody.stretched(samples)
    octaves = np.zeros(len(f0), np.float32)
    if voiced.any():
        octaves = np.log2(f0 / _REFERENCE)
        octaves -= octaves[voiced].mean() if normalize else 0.0
    return np.stack([octaves, voiced]).astype(np.float32)[:, : len(f0) // HOP * HOP]


class Residual(nn.Module):
    """``x + conv1(relu(conv3(relu(x))))`` with dilation."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.layers = nn.Sequential(nn.ReLU(), wide, nn.ReLU(), nn.Conv1d(width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape is kept: float32[B, width, F]."""
        y: torch.Tensor = x + self.layers(x)
        return y


class PitchCoder(nn.Module):
    """VQ-VAE from float32[B, 2, 16 M] to int64[B, M] and back."""

    codebook: torch.Tensor

    def __init__(self, config: PitchConfig) -> None:
        super().__init__()
        self.config = config
        channels = [2] + [config.width] * _STAGES
        down = [nn.Sequential(nn.Conv1d(a, b, 4, 2, 1), *_residuals(config)) for a, b in pairwise(channels)]
        self.encoder = nn.Sequential(*down, nn.Conv1d(config.width, config.embedding, 3, padding=1))
        up = [
            nn.Sequential(*_residuals(config), nn.ConvTranspose1d(config.width, config.width, 4, 2, 1))
            for _ in range(_STAGES)
        ]
        start = nn.Conv1d(config.embedding, config.width, 3, padding=1)
        self.decoder = nn.Sequential(start, *up, nn.Conv1d(config.width, 2, 3, padding=1))
        self.register_buffer("codebook", torch.zeros(config.codes, config.embedding))

    def embed(self, contours: torch.Tensor) -> torch.Tensor:
        """Encoder output, float32[B, M, embedding]."""
        embedded: torch.Tensor = self.encoder(contours).transpose(1, 2)
        return embedded

    def nearest(self, embedded: torch.Tensor) -> torch.Tensor:
        """Index of the nearest code by squared distance, int64[...]; the first one on a tie."""
        scores = embedded @ self.codebook.T - (self.codebook**2).sum(dim=1) / 2
        return scores.argmax(dim=-1)

    def decode(self, embedded: torch.Tensor) -> torch.Tensor:
        """Octaves and voicing logits, float32[B, 2, 16 M], from float32[B, M, embedding]."""
        decoded: torch.Tensor = self.decoder(embedded.transpose(1, 2))
        return decoded

    @torch.inference_mode()
    def encode(self, contours: NDArray[np.float32]) -> NDArray[np.int8]:
        """Units int8[M] of one contour float32[2, 16 M]."""
        if contours.shape[1] == 0:
            return np.zeros(0, np.int8)
        units = self.nearest(self.embed(torch.from_numpy(contours)[None].to(self.codebook.device)))
        return units[0].cpu().numpy().astype(np.int8)

    @torch.inference_mode()
    def reconstruct(self, units: NDArray[np.int8]) -> NDArray[np.float32]:
        """Octaves and voicing probability, float32[2, 16 M], from units int8[M]."""
        index = torch.from_numpy(units.astype(np.int64)).to(self.codebook.device)
        octaves, voicing = self.decode(self.codebook[index][None])[0]
        return torch.stack([octaves, voicing.sigmoid()]).cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        from safetensors.torch import save_file

        (folder / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        save_file({name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> PitchCoder:
        """Read what :meth:`save` wrote.

        Raises:
            ModelReferenceError: The folder does not hold such a model.
        """
        from safetensors.torch import load_file

        try:
            coder = cls(PitchConfig.model_validate(json.loads((folder / "config.json").read_text())))
            coder.load_state_dict(load_file(folder / _WEIGHTS))
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelReferenceError(f"{folder} is not a pitch model of this project: {error}") from error
        return coder.to(device).eval()


_WEIGHTS = "model.safetensors"


def _residuals(config: PitchConfig) -> list[Residual]:
    return [Residual(config.width, 3**i) for i in range(config.depth)]
