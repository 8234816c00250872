"""w2v-BERT 2.0 (Barrault et al. 2023, arXiv 2312.05187): conformer blocks over mel spectra."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from transformers.audio_utils import window_function

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.encoders.encoder import BlockEncoder, configuration, preprocessor, pretrained
from spiritlm_core.speech.encoders.precision import Precision, convert_linears, kind_of
from spiritlm_core.speech.mel import HOP, WINDOW, mel_energies, mel_filters, window_count

_FFT, _FLOOR, _PREEMPHASIS = 512, 1.192092955078125e-07, 0.97
_STACKED = 2  # mel windows beside each other in a frame


class W2vBertEncoder(BlockEncoder):
    """A `transformers.Wav2Vec2BertModel` with relative keys, as the published ones have.

    Where the number of mel windows is odd the last one counts twice, so that the last samples are heard.
    """

    model_class: ClassVar[str] = "Wav2Vec2BertModel"
    usual_layer: ClassVar[float] = 0.75
    stride = _STACKED * HOP

    def __init__(self, model: Any, precision: Precision = "exact") -> None:
        """Take over `model`."""
        self._model = model.eval().requires_grad_(requires_grad=False)
        self.device = model.device
        self.kind = kind_of(precision, self.device.type)
        self.width = int(model.config.hidden_size)
        window = window_function(WINDOW, "povey", periodic=False)
        self._window = torch.from_numpy(window).float().to(self.device)
        scale = {"mel_scale": "kaldi", "triangularize_in_mel_space": True}
        bands = int(model.config.feature_projection_input_dim) // _STACKED
        self._filters = mel_filters(bands, _FFT, str(self.device), **scale)
        for block in self._model.encoder.layers:  # its attention mixes float32 and what its products give
            convert_linears(block.ffn1, self.kind)
            convert_linears(block.ffn2, self.kind)

    @classmethod
    def load(cls, folder: Path, depth: int, device: str, precision: Precision) -> Self:
        """Load a Hugging Face folder."""
        config = configuration(cls.model_class, folder)
        stacked = preprocessor(folder).get("stride", _STACKED)
        if config.position_embeddings_type != "relative_key" or stacked != _STACKED:
            raise ModelReferenceError(f"{folder} is not made like the published w2v-BERT 2.0: relative keys at 50 Hz")
        config.num_hidden_layers, config.add_adapter = depth, False
        model = pretrained(cls.model_class, folder, config, spare=("masked_spec_embed",))
        return cls(model.to(device), precision)

    def frame_count(self, samples: int) -> int:
        """Pairs of mel windows, begun ones included."""
        return -(-window_count(samples) // _STACKED)

    def frames(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """Projected pairs of mel spectra."""
        return [self._model.feature_projection(self.stacked_mel(waveform))[0] for waveform in waveforms]

    def stacked_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """Logarithm of the mel spectrum, each band at zero mean and unit variance, float32[N, 2 bands]."""
        frames = waveform.unfold(0, WINDOW, HOP) * 2**15
        frames = frames - frames.mean(dim=1, keepdim=True)
        first, rest = frames[:, :1] * (1 - _PREEMPHASIS), frames[:, 1:] - _PREEMPHASIS * frames[:, :-1]
        mel = mel_energies(torch.cat([first, rest], dim=1), self._window, self._filters).clamp(min=_FLOOR).log()
        mel = (mel - mel.mean(dim=0)) / torch.sqrt(mel.var(dim=0) + 1e-7)
        whole = torch.cat([mel, mel[-1:]]) if len(mel) % _STACKED else mel
        return whole.reshape(-1, _STACKED * mel.shape[1])

    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Outputs of the blocks."""
        hidden, added = frames, None
        if mask is not None:
            added = torch.zeros_like(mask, dtype=frames.dtype).masked_fill(~mask, torch.finfo(frames.dtype).min)
            added = added[:, None, None]
        for block in self._model.encoder.layers:
            output = block(hidden, attention_mask=added, conv_attention_mask=mask)
            hidden = output[0] if isinstance(output, tuple) else output
            yield hidden
