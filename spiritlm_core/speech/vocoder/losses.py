"""The losses of vocoder training (HiFi-GAN, arXiv 2010.05646, section 2.3). Each is a mean over the items given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import l1_loss

from spiritlm_core.speech.mel import mel_filters
from spiritlm_core.speech.vocoder.discriminators import Judgement

_FLOOR = 1e-5
_RESOLUTIONS = ((256, 24), (512, 48), (1024, 80), (2048, 128))
"""Samples of a window and mel bands; four windows overlap everywhere."""


class MelDistance(nn.Module):
    """Mean absolute difference of log-mel spectrograms, averaged over several resolutions.

    The paper has one resolution; several of them (as in arXiv 1910.11480) tell more of transients and of pitch.
    """

    def __init__(self) -> None:
        super().__init__()
        for window, bands in _RESOLUTIONS:
            self.register_buffer(f"filters_{window}", mel_filters(bands, window), persistent=False)
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Of waveforms float32[B, T], each at least 1024 samples long."""
        distances = [l1_loss(self._mel(made, size), self._mel(wanted, size)) for size, _ in _RESOLUTIONS]
        return torch.stack(distances).mean()

    def _mel(self, waveforms: torch.Tensor, size: int) -> torch.Tensor:
        """float32[B, bands, frames]."""
        window: torch.Tensor = getattr(self, f"window_{size}")
        filters: torch.Tensor = getattr(self, f"filters_{size}")
        spectrum = torch.stft(waveforms, size, size // 4, window=window, return_complex=True)
        # The square root of 0 has no gradient.
        power = spectrum.real**2 + spectrum.imag**2
        magnitude = torch.sqrt(power + _FLOOR**2)
        return torch.log(filters.T @ magnitude + _FLOOR)


def discriminator_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> torch.Tensor:
    """Least squares (eq. 1): recordings to 1, what was made to 0; summed over discriminators."""
    losses = [((1 - r) ** 2).mean() + (m**2).mean() for (r, _), (m, _) in zip(real, made, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(made: Sequence[Judgement]) -> torch.Tensor:
    """Least squares (eq. 2): what was made to 1; summed over discriminators."""
    return torch.stack([((1 - score) ** 2).mean() for score, _ in made]).sum()


def feature_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> torch.Tensor:
    """Mean absolute difference of each layer's outputs (eq. 4), summed over layers and discriminators."""
    pairs = [
        (r, m) for (_, wanted), (_, found) in zip(real, made, strict=True) for r, m in zip(wanted, found, strict=True)
    ]
    return torch.stack([l1_loss(m, r.detach()) for r, m in pairs]).sum()


def duration_loss(predicted: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Squared error of log(1 + frames), float32[B, N] against int64[B, N] (arXiv 2104.00355)."""
    return ((predicted - torch.log1p(frames.float())) ** 2).mean()
