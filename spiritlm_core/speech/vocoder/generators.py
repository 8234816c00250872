"""The generators of vocoders: HiFi-GAN (arXiv 2010.05646), and one in the manner of Vocos (arXiv 2306.00814).

Their convolutions are plain: the weight norm that HiFi-GAN is trained with is folded into the weights.
"""

from functools import reduce

import torch
from torch import nn
from torch.nn.functional import gelu, leaky_relu, pad
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_core.speech.vocoder.config import EDGE_KERNEL, HifiganConfig, IstftConfig


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """A convolution that keeps the length."""
    return nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel // 2))


def within(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """`x`, float[B, C, T], with zeros from `lengths` on."""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
    return x * inside[:, None]


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
        return reduce(torch.add, [block(x, lengths) for block in self]) / len(self)


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
        """Waveforms float32[B, 640 F] in [-1, 1] of embedded frames float32[B, inputs, F].

        Where items differ, `lengths`, int64[B], are their frames; what lies behind is kept zero before every
        convolution, so that an item comes out as it would alone.
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


_LOUDEST = 6.0  # greatest logarithm of a magnitude: what a broken head may ask for is bounded


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
        return x + (self.scale * self.narrow(gelu(self.wide(inner)))).transpose(1, 2)


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
        """Waveforms float32[B, 640 F] in [-1, 1] of embedded frames float32[B, inputs, F].

        Where items differ, `lengths`, int64[B], are their frames; what lies behind takes no part.
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
        window = torch.hann_window(self.config.window, device=frames.device)
        pieces = self.pieces(magnitude.clamp(max=_LOUDEST).exp(), phase) * window
        weights = (window**2).expand_as(pieces)
        if lengths is not None:
            pieces = within(pieces.transpose(1, 2), lengths).transpose(1, 2)
            weights = within(weights.transpose(1, 2), lengths).transpose(1, 2)
        waveform = self._overlapped(pieces) / self._overlapped(weights).clamp(min=1e-4)
        return waveform.clamp(-1, 1)

    def pieces(self, magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
        """Frames float32[B, T, window] of magnitudes and phases float32[B, T, window / 2 + 1]."""
        return torch.fft.irfft(torch.polar(magnitude, phase), self.config.window)

    def _overlapped(self, pieces: torch.Tensor) -> torch.Tensor:
        """The sum of float32[B, T, window], each `hop` after the one before, without `trim` at both ends."""
        times = self.config.window // self.config.hop
        parts = pieces.unflatten(-1, (times, -1))  # type: ignore[no-untyped-call]
        total = reduce(torch.add, [pad(parts[:, :, i], (0, 0, i, times - 1 - i)) for i in range(times)]).flatten(1)
        trim = self.config.trim
        return pad(total, (-trim, trim - (times - 1) * self.config.hop))
