"""A generator that ends in an inverse short-time Fourier transform (Vocos, arXiv 2306.00814)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import gelu

from spiritlm_core.speech.vocoder.config import EDGE_KERNEL, IstftConfig
from spiritlm_core.speech.vocoder.layers import convolution, within

_LOUDEST = 6.0
"""Greatest logarithm of a magnitude: what a broken head may ask for is bounded."""


class ConvNextBlock(nn.Module):
    """Depth-wise convolution, layer norm, two linear maps with GELU between, scaled and added (arXiv 2201.03545)."""

    def __init__(self, config: IstftConfig, scale: float) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.across = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, config.expansion * width)
        self.narrow = nn.Linear(config.expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """float32[B, width, T] to the same shape; `lengths` as in :class:`IstftGenerator`."""
        inner = self.norm(self.across(within(x, lengths)).transpose(1, 2))
        output: torch.Tensor = x + (self.scale * self.narrow(gelu(self.wide(inner)))).transpose(1, 2)
        return output


class IstftGenerator(nn.Module):
    """Blocks over units, then over Fourier frames, whose magnitudes and phases are a linear map of the last block."""

    def __init__(self, config: IstftConfig, inputs: int) -> None:
        super().__init__()
        self.config = config
        width, depth = config.width, max(1, config.unit_layers + config.layers)
        self.first = convolution(inputs, width, EDGE_KERNEL)
        self.first_norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.slow = nn.ModuleList(ConvNextBlock(config, 1 / depth) for _ in range(config.unit_layers))
        self.spread = nn.Linear(width, config.frames * width)
        self.fast = nn.ModuleList(ConvNextBlock(config, 1 / depth) for _ in range(config.layers))
        self.head = nn.Linear(width, config.window + 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Waveforms of embedded frames.

        Args:
            x: float32[B, inputs, F].
            lengths: int64[B], frames of each item where they differ; what lies behind takes no part.

        Returns:
            float32[B, 640 F] in [-1, 1].
        """
        x = self.first_norm(self.first(within(x, lengths)).transpose(1, 2)).transpose(1, 2)
        for block in self.slow:
            x = block(x, lengths)
        x = self.spread(x.transpose(1, 2)).unflatten(-1, (self.config.frames, -1)).flatten(1, 2).transpose(1, 2)
        lengths = None if lengths is None else lengths * self.config.frames
        for block in self.fast:
            x = block(x, lengths)
        return self._waveform(self.head(self.last_norm(x.transpose(1, 2))), lengths)

    def _waveform(self, frames: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Overlapping frames float32[B, T, window + 2] of log-magnitudes and phases to float32[B, hop T]."""
        magnitude, phase = frames.float().chunk(2, dim=-1)
        spectrum = torch.polar(magnitude.clamp(max=_LOUDEST).exp(), phase)
        window = torch.hann_window(self.config.window, device=frames.device)
        pieces = torch.fft.irfft(spectrum, self.config.window) * window
        weights = (window**2).expand_as(pieces)
        if lengths is not None:
            pieces = within(pieces.transpose(1, 2), lengths).transpose(1, 2)
            weights = within(weights.transpose(1, 2), lengths).transpose(1, 2)
        waveform = self._overlapped(pieces) / self._overlapped(weights).clamp(min=1e-4)
        return waveform.clamp(-1, 1)

    def _overlapped(self, pieces: torch.Tensor) -> torch.Tensor:
        """The sum of float32[B, T, window], each `hop` after the one before, without `trim` at both ends."""
        hop, (batch, count, window) = self.config.hop, pieces.shape
        parts = pieces.view(batch, count, window // hop, hop)
        total = pieces.new_zeros(batch, count + window // hop - 1, hop)
        for i in range(window // hop):
            total[:, i : i + count] += parts[:, :, i]
        return total.flatten(1)[:, self.config.trim : self.config.trim + count * hop]
