"""Whisper's encoder (Radford et al. 2022, arXiv 2212.04356), without the 30 s of padding that it was trained with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch.nn.functional import gelu

from spiritlm_core.speech.encoders.ctranslate2 import WEIGHTS, layers_in_file, read_whisper
from spiritlm_core.speech.encoders.encoder import BlockEncoder, configuration, preprocessor, pretrained
from spiritlm_core.speech.encoders.precision import Precision, convert_linears, kind_of
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.mel import HOP, WINDOW, mel_energies, mel_filters, window_count

_DYNAMIC_RANGE = 8.0  # powers of ten below the loudest band that are told apart


class WhisperEncoder(BlockEncoder):
    """The encoder of a `transformers.WhisperModel`, or of one converted for CTranslate2.

    Mel windows begin on the grid of the units, where Whisper's own are centred on it; convolutions see the ends of a
    clip, not of a batch. Longer clips than the model has positions for are cut into even windows. The features of the
    last layer are normed, as the decoder sees them; of the others, they are the block's own output.
    """

    model_class: ClassVar[str] = "WhisperModel"
    usual_layer: ClassVar[float] = 0.75
    stride = 2 * HOP

    def __init__(self, encoder: Any, precision: Precision = "exact", *, last: bool = True) -> None:
        """Take over a `transformers` WhisperEncoder, whose `last` block may not be the last one of the whole model."""
        self._model = encoder.eval().requires_grad_(requires_grad=False)
        self.device = encoder.device
        self.kind = kind_of(precision, self.device.type)
        self.width = int(encoder.config.d_model)
        self.longest = int(encoder.config.max_source_positions) * self.stride // FRAME
        self._last = last
        self._window = torch.hann_window(WINDOW, device=self.device)
        scale = {"low": 0.0, "mel_scale": "slaney", "norm": "slaney"}
        self._filters = mel_filters(int(encoder.config.num_mel_bins), WINDOW, str(self.device), **scale)
        convert_linears(self._model.layers, self.kind)

    @classmethod
    def load(cls, folder: Path, depth: int, device: str, precision: Precision) -> Self:
        """Load a folder of Hugging Face or CTranslate2."""
        last = depth == cls.layers_in(folder)
        if (folder / WEIGHTS).is_file():
            return cls(read_whisper(folder / WEIGHTS, depth).to(device), precision, last=last)
        preprocessor(folder)
        config = configuration(cls.model_class, folder)
        config.encoder_layers, config.decoder_layers = depth, 0
        model = pretrained(cls.model_class, folder, config, spare=_DECODER)
        return cls(model.encoder.to(device), precision, last=last)

    @classmethod
    def layers_in(cls, folder: Path) -> int:
        """Number of layers of the encoder in `folder`."""
        if (folder / WEIGHTS).is_file():
            return layers_in_file(folder / WEIGHTS)
        return super().layers_in(folder)

    def frame_count(self, samples: int) -> int:
        """Every second mel window."""
        return -(-window_count(samples) // 2)

    def frames(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """Convolved mel spectra with their positions."""
        return [self._convolved(self.log_mel(waveform)) for waveform in waveforms]

    def log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """Scaled logarithm of the mel spectrum, float32[M, bands], as Whisper takes it."""
        return self.scaled(mel_energies(waveform.unfold(0, WINDOW, HOP), self._window, self._filters))

    @staticmethod
    def scaled(energies: torch.Tensor) -> torch.Tensor:
        """Power in each band, float32[M, bands], on the logarithmic scale of Whisper."""
        powers = energies.clamp(min=1e-10).log10()
        return (powers.clamp(min=powers.max() - _DYNAMIC_RANGE) + 4) / 4

    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Outputs of the blocks."""
        hidden = frames
        attended = None if mask is None else mask[:, None, None]
        for number, block in enumerate(self._model.layers, 1):
            output = block(hidden, attended, layer_head_mask=None)
            hidden = output[0] if isinstance(output, tuple) else output
            yield self._model.layer_norm(hidden) if self._last and number == len(self._model.layers) else hidden

    def _convolved(self, mel: torch.Tensor) -> torch.Tensor:
        hidden = gelu(self._model.conv2(gelu(self._model.conv1(mel.T))))
        return hidden.T + self._model.embed_positions.weight[: hidden.shape[1]]


_DECODER = (
    "decoder.embed_tokens.weight", "decoder.embed_positions.weight", "decoder.layer_norm.weight",
    "decoder.layer_norm.bias",
)  # fmt: skip
"""Weights outside its layers, which a folder of an encoder alone does not have."""
