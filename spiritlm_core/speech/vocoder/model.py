"""The network of a vocoder: embeddings, a generator, and the duration predictor."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from spiritlm_core.speech.quantizers.quantizer import load_quantizer
from spiritlm_core.speech.vocoder.config import GeneratorConfig, HifiganConfig, VocoderConfig
from spiritlm_core.speech.vocoder.generators import HifiganGenerator, IstftGenerator, convolution

_LONGEST_UNIT = 2500  # frames, 100 s: what a broken predictor may ask for is bounded


class DurationPredictor(nn.Module):
    """Twice convolution, ReLU and layer norm, then a linear map (arXiv 2006.04558, figure 1c)."""

    def __init__(self, embedding: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(embedding, channels, kernel), nn.LayerNorm(channels)
        self.conv2, self.norm2 = convolution(channels, channels, kernel), nn.LayerNorm(channels)
        self.last = nn.Linear(channels, 1)

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Embedded units float32[B, N, embedding] to log(1 + frames), float32[B, N]."""
        x = units
        for layer, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = norm(torch.relu(layer(x.transpose(1, 2))).transpose(1, 2))
        predicted: torch.Tensor = self.last(x)
        return predicted[..., 0]


def make_generator(config: GeneratorConfig, inputs: int) -> HifiganGenerator | IstftGenerator:
    """The generator of a kind, for `inputs` channels of embedded units."""
    return HifiganGenerator(config, inputs) if isinstance(config, HifiganConfig) else IstftGenerator(config, inputs)


class VocoderModel(nn.Module):
    """All of it: streams of one entry per frame in, a waveform out."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embedding
        self.embeddings = nn.ModuleDict({name: nn.Embedding(n, size) for name, n in config.embeddings.items()})
        self.generator = make_generator(config.generator, config.inputs)
        self.durations = DurationPredictor(size, config.duration_channels, config.duration_kernel)

    def forward(self, streams: dict[str, torch.Tensor], lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Waveforms float32[B, 640 F] of streams int64[B, F], one for each embedding; `lengths` as in the generator."""
        embedded = [self.embeddings[name](streams[name]) for name in self.config.embeddings]
        return self.generator(torch.cat(embedded, dim=-1).transpose(1, 2), lengths)

    def log_frames(self, units: torch.Tensor) -> torch.Tensor:
        """Predicted log(1 + frames) of each unit, float32[B, N], for int64[B, N]."""
        return self.durations(self.embeddings["units"](units))

    def frames(self, units: torch.Tensor) -> torch.Tensor:
        """Predicted frames of each unit, int64[B, N] of at least 1, for int64[B, N]; halves round to even."""
        return torch.round(torch.exp(self.log_frames(units)) - 1).clamp(min=1, max=_LONGEST_UNIT).long()

    def save(self, folder: Path) -> None:
        """Write it into `folder`."""
        self.config.save(self, folder)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> VocoderModel:
        """Read what :meth:`save` wrote. Raises ModelReferenceError: the folder does not hold such a model."""
        return VocoderConfig.load(folder, cls.unfilled, device)

    @classmethod
    def unfilled(cls, config: VocoderConfig) -> VocoderModel:
        """One whose weights are still to be assigned."""
        with torch.device("meta"):
            return cls(config)


@torch.no_grad()
def start_from_centres(table: torch.Tensor, quantizer: Path) -> None:
    """Put rows where the centres lie along their first principal axes; units that the quantizer lacks stay.

    With c the centres less their mean and V their principal axes, as many as a row has entries, row k is
    ``c[k] @ V / s``; s makes the entries spread by 1, as if they had been drawn. Axes that the centres lack are 0.

    Args:
        table: float32[units, embedding], changed in place.
        quantizer: its folder.

    Raises ModelReferenceError: the quantizer cannot be loaded.
    """
    centres = torch.from_numpy(load_quantizer(quantizer).unit_vectors)[: len(table)].double()
    centred = centres - centres.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: table.shape[1]]
    placed = centred @ axes.T
    table[: len(placed)] = 0
    table[: len(placed), : len(axes)] = (placed / placed.std().clamp(min=1e-8)).to(table)
