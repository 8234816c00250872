"""The network of a vocoder: embeddings, the HiFi-GAN generator, and the duration predictor.

Plain convolutions: the weight norm that such models are trained with is folded into their weights.
"""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import leaky_relu

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.vocoder.config import EDGE_KERNEL, VocoderConfig

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_LONGEST_UNIT = 2500  # frames, 100 s: what a broken predictor may ask for is bounded
_SLOPE, _LAST_SLOPE = 0.1, 0.01  # the last one is the default of PyTorch, as in the authors' code of HiFi-GAN


class ResidualBlock(nn.Module):
    """For each dilation: leaky ReLU, dilated convolution, leaky ReLU, convolution, and the input added."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(_convolution(channels, channels, kernel, dilation) for dilation in dilations)
        self.plain = nn.ModuleList(_convolution(channels, channels, kernel) for _ in dilations)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """float32[B, channels, T] to the same shape; `lengths` as in :class:`Generator`."""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            inner = dilated(_within(leaky_relu(x, _SLOPE), lengths))
            x = x + plain(_within(leaky_relu(inner, _SLOPE), lengths))
        return x


class ResidualBlocks(nn.ModuleList):
    """The mean of residual blocks of several kernels side by side."""

    def __init__(self, channels: int, config: VocoderConfig) -> None:
        kinds = zip(config.block_kernels, config.block_dilations, strict=True)
        super().__init__(ResidualBlock(channels, kernel, dilations) for kernel, dilations in kinds)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """As :meth:`ResidualBlock.forward`."""
        mean: torch.Tensor = reduce(torch.add, [block(x, lengths) for block in self]) / len(self)
        return mean


class Generator(nn.Module):
    """Stages of a transposed convolution and the mean of residual blocks (arXiv 2010.05646, section 2.3)."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        widths = [config.channels >> stage for stage in range(len(config.rates) + 1)]
        shapes = list(zip(widths, widths[1:], config.kernels, config.rates, strict=False))
        self.rates = config.rates
        self.first = _convolution(config.embedding * len(config.embeddings), config.channels, EDGE_KERNEL)
        self.ups = nn.ModuleList(nn.ConvTranspose1d(a, b, k, u, padding=(k - u) // 2) for a, b, k, u in shapes)
        self.blocks = nn.ModuleList(ResidualBlocks(b, config) for _, b, _, _ in shapes)
        self.last = _convolution(widths[-1], 1, EDGE_KERNEL)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Waveforms of embedded frames.

        Args:
            x: float32[B, embeddings * size, F].
            lengths: int64[B], frames of each item where they differ; what lies behind is kept zero before every
                convolution, so that an item comes out as it would alone.

        Returns:
            float32[B, 640 F] in [-1, 1].
        """
        x = self.first(_within(x, lengths))
        for rate, up, blocks in zip(self.rates, self.ups, self.blocks, strict=True):
            x = up(_within(leaky_relu(x, _SLOPE), lengths))
            lengths = None if lengths is None else lengths * rate
            x = blocks(x, lengths)
        waveform: torch.Tensor = torch.tanh(self.last(_within(leaky_relu(x, _LAST_SLOPE), lengths)))
        return waveform[:, 0]


class DurationPredictor(nn.Module):
    """Twice convolution, ReLU and layer norm, then a linear map (arXiv 2006.04558, figure 1c)."""

    def __init__(self, embedding: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(embedding, channels, kernel), nn.LayerNorm(channels)
        self.conv2, self.norm2 = _convolution(channels, channels, kernel), nn.LayerNorm(channels)
        self.last = nn.Linear(channels, 1)

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Embedded units float32[B, N, embedding] to log(1 + frames), float32[B, N]."""
        x = units
        for convolution, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = norm(torch.relu(convolution(x.transpose(1, 2))).transpose(1, 2))
        predicted: torch.Tensor = self.last(x)
        return predicted[..., 0]


class VocoderModel(nn.Module):
    """All of it: streams of one entry per frame in, a waveform out."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.embeddings = nn.ModuleDict({name: nn.Embedding(n, size) for name, n in config.embeddings.items()})
        self.generator = Generator(config)
        self.durations = DurationPredictor(size, config.duration_channels, config.duration_kernel)

    def forward(self, streams: dict[str, torch.Tensor], lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Waveforms float32[B, 640 F] of streams int64[B, F], one for each embedding; `lengths` as in the generator."""
        embedded = [self.embeddings[name](streams[name]) for name in self.config.embeddings]
        waveform: torch.Tensor = self.generator(torch.cat(embedded, dim=-1).transpose(1, 2), lengths)
        return waveform

    def frames(self, units: torch.Tensor) -> torch.Tensor:
        """Predicted frames of each unit, int64[B, N] of at least 1, for int64[B, N]; halves round to even."""
        predicted: torch.Tensor = self.durations(self.embeddings["units"](units))
        return torch.round(torch.exp(predicted) - 1).clamp(min=1, max=_LONGEST_UNIT).long()

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        (folder / _CONFIG).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        save_file(weights, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> VocoderModel:
        """Read what :meth:`save` wrote.

        Raises:
            ModelReferenceError: the folder does not hold such a model, whole and with finite weights.
        """
        try:
            config = VocoderConfig.model_validate(json.loads((folder / _CONFIG).read_text(encoding="utf-8")))
            with torch.device("meta"):
                model = cls(config)
            weights = load_file(folder / _WEIGHTS)
            model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelReferenceError(f"{folder} is not a vocoder of this project: {reason}") from error
        if bad := [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]:
            raise ModelReferenceError(f"{folder / _WEIGHTS}: tensor {bad[0]} holds NaN or infinity")
        return model.to(device).eval()


def _convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """A convolution that keeps the length."""
    return nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel // 2))


def _within(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """`x`, float[B, C, T], with zeros from `lengths` on."""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
    return x * inside[:, None]
