"""The HiFi-GAN generator: transposed convolutions and residual blocks.

Plain convolutions: the weight norm that such models are trained with is folded into their weights.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import nn
from torch.nn.functional import leaky_relu
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_core.speech.vocoder.config import EDGE_KERNEL, HifiganConfig
from spiritlm_core.speech.vocoder.layers import convolution, within

_SLOPE, _LAST_SLOPE = 0.1, 0.01  # the last one is the default of PyTorch, as in the authors' code of HiFi-GAN


class ResidualBlock(nn.Module):
    """For each dilation: leaky ReLU, dilated convolution, leaky ReLU, convolution, and the input added."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(convolution(channels, channels, kernel, dilation) for dilation in dilations)
        self.plain = nn.ModuleList(convolution(channels, channels, kernel) for _ in dilations)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """float32[B, channels, T] to the same shape; `lengths` as in :class:`HifiganGenerator`."""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            inner = dilated(within(leaky_relu(x, _SLOPE), lengths))
            x = x + plain(within(leaky_relu(inner, _SLOPE), lengths))
        return x


class ResidualBlocks(nn.ModuleList):
    """The mean of residual blocks of several kernels side by side."""

    def __init__(self, channels: int, config: HifiganConfig) -> None:
        kinds = zip(config.block_kernels, config.block_dilations, strict=True)
        super().__init__(ResidualBlock(channels, kernel, dilations) for kernel, dilations in kinds)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """As :meth:`ResidualBlock.forward`."""
        mean: torch.Tensor = reduce(torch.add, [block(x, lengths) for block in self]) / len(self)
        return mean


class HifiganGenerator(nn.Module):
    """Stages of a transposed convolution and the mean of residual blocks (arXiv 2010.05646, section 2.3)."""

    def __init__(self, config: HifiganConfig, inputs: int) -> None:
        super().__init__()
        widths = [config.channels >> stage for stage in range(len(config.rates) + 1)]
        shapes = list(zip(widths, widths[1:], config.kernels, config.rates, strict=False))
        self.rates = config.rates
        self.first = convolution(inputs, config.channels, EDGE_KERNEL)
        self.ups = nn.ModuleList(nn.ConvTranspose1d(a, b, k, u, padding=(k - u) // 2) for a, b, k, u in shapes)
        self.blocks = nn.ModuleList(ResidualBlocks(b, config) for _, b, _, _ in shapes)
        self.last = convolution(widths[-1], 1, EDGE_KERNEL)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Waveforms of embedded frames.

        Args:
            x: float32[B, inputs, F].
            lengths: int64[B], frames of each item where they differ; what lies behind is kept zero before every
                convolution, so that an item comes out as it would alone.

        Returns:
            float32[B, 640 F] in [-1, 1].
        """
        x = self.first(within(x, lengths))
        for rate, up, blocks in zip(self.rates, self.ups, self.blocks, strict=True):
            x = up(within(leaky_relu(x, _SLOPE), lengths))
            lengths = None if lengths is None else lengths * rate
            x = blocks(x, lengths)
        waveform: torch.Tensor = torch.tanh(self.last(within(leaky_relu(x, _LAST_SLOPE), lengths)))
        return waveform[:, 0]


def normalise_weights(module: nn.Module) -> None:
    """Put weight norm on every convolution, as HiFi-GAN is trained."""
    for layer in _convolutions(module):
        weight_norm(layer)


def fold_weight_norm(module: nn.Module) -> None:
    """Turn convolutions under weight norm into plain ones that compute the same."""
    for layer in _convolutions(module):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")


def _convolutions(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d)]
