"""Encoders whose first layers are convolutions over samples: HuBERT, wav2vec 2.0, WavLM."""

import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.encoders.encoder import BlockEncoder, configuration, preprocessor, pretrained
from spiritlm_core.speech.encoders.front_end import FrontEnd
from spiritlm_core.speech.encoders.precision import Affine, Precision, convert_linears, kind_of
from spiritlm_core.speech.grid import FRAME, on_grid


class WaveformEncoder(BlockEncoder):
    """Outputs of the transformer blocks of a `HubertModel`, a `Wav2Vec2Model` or one made like these.

    The convolutions never see padding (see `front_end.FrontEnd`), the positional convolution sees zeros there as it
    does beyond the ends of a lone clip, and attention masks it. A layer's features are the block's own output,
    without the final norm of a pre-norm encoder.
    """

    def __init__(self, model: Any, depth: int, *, normalize: bool = False, precision: Precision = "exact") -> None:
        """Copy the blocks up to `depth`, from 1, of a `transformers` model onto its device; the model itself stays.

        With `normalize` each waveform is brought to zero mean and unit variance first, as the model's preprocessor
        says.

        Raises ModelReferenceError: the convolutions use an unknown activation.
        """
        self.device = model.device
        self.kind = kind_of(precision, self.device.type)
        self.width = int(model.config.hidden_size)
        self._normalize = normalize
        self.front_end = FrontEnd(model.feature_extractor, self.kind)
        self.stride = self.front_end.hop
        self._norm = getattr(model.feature_projection, "layer_norm", None)
        projection = model.feature_projection.projection
        self._projection = Affine(projection.weight, projection.bias, self.kind)
        self._pre_norm = bool(model.config.do_stable_layer_norm)
        self._encoder = _lone(model.encoder, depth)
        # GPUs have no fast kernel for a grouped convolution of bf16 numbers, and its share of the work is small.
        narrow = self.kind == "bf16" and self.device.type == "cpu"
        self._position = self._encoder.pos_conv_embed.to(torch.bfloat16 if narrow else torch.float32)
        self._convert(self._encoder.layers)

    @classmethod
    def load(cls, folder: Path, depth: int, device: str, precision: Precision) -> Self:
        """Load a Hugging Face folder."""
        config = configuration(cls.model_class, folder)
        if not on_grid(config.conv_kernel, config.conv_stride):
            raise ModelReferenceError(f"the convolutions of {folder} fit no frame of {FRAME} samples at 16 kHz")
        config.num_hidden_layers = depth
        model = pretrained(cls.model_class, folder, config, spare=("masked_spec_embed",))
        normalize = bool(preprocessor(folder).get("do_normalize", False))
        return cls(model.to(device), depth, normalize=normalize, precision=precision)

    def frame_count(self, samples: int) -> int:
        """Frames of the convolutions."""
        return self.front_end.count(samples)

    def frames(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """Projected frames of the convolutions."""
        clips = self.front_end([self._prepared(waveform) for waveform in waveforms])
        return list(torch.split(self._projected(torch.cat(clips)), [len(clip) for clip in clips]))

    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Outputs of the blocks."""
        hidden = self._placed(frames)
        attended = None if mask is None else mask[:, None, None]
        for block in self._encoder.layers:
            output = block(hidden, attention_mask=attended)
            hidden = output[0] if isinstance(output, tuple) else output
            yield hidden

    def final_norm(self, frames: torch.Tensor) -> torch.Tensor:
        """The last block's output as `last_hidden_state` has it: a pre-norm encoder ends in a norm."""
        return self._encoder.layer_norm(frames) if self._pre_norm else frames

    def _convert(self, blocks: nn.ModuleList) -> None:
        """Bring the products of the blocks to the precision asked for."""
        convert_linears(blocks, self.kind)

    def _placed(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames float32[B, N, D] with their positions added."""
        hidden = frames + self._position(frames.to(self._position.conv.weight.dtype))
        return hidden if self._pre_norm else self._encoder.layer_norm(hidden)

    def _prepared(self, waveform: torch.Tensor) -> torch.Tensor:
        if self._normalize:
            return (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)
        return waveform

    def _projected(self, frames: torch.Tensor) -> torch.Tensor:
        normed = frames.float() if self._norm is None else self._norm(frames.float())
        projected: torch.Tensor = self._projection(normed)
        return projected.float()


def _lone(encoder: nn.Module, layers: int) -> Any:
    """A copy without the blocks above `layers`, for inference: position weights ready-made, no dropout."""
    blocks = encoder.layers
    encoder.layers = blocks[:layers]  # type: ignore[index]
    try:
        copy = deepcopy(encoder).eval().requires_grad_(requires_grad=False)
    finally:
        encoder.layers = blocks
    position: Any = copy.pos_conv_embed
    position.conv = _plain(position.conv)
    return copy


def _plain(convolution: nn.Conv1d) -> nn.Conv1d:
    """The same convolution without weight norm, which would be worked out at every call."""
    weight: torch.Tensor = convolution.weight.detach()
    sizes = (convolution.in_channels, convolution.out_channels, weight.shape[2])
    plain = nn.Conv1d(*sizes, padding=convolution.padding[0], groups=convolution.groups)
    plain.weight.data, plain.bias = weight, convolution.bias
    return plain.requires_grad_(requires_grad=False)


class HubertEncoder(WaveformEncoder):
    """A `transformers.HubertModel` (Hsu et al. 2021, arXiv 2106.07447)."""

    model_class: ClassVar[str] = "HubertModel"


class Wav2Vec2Encoder(WaveformEncoder):
    """A `transformers.Wav2Vec2Model` (Baevski et al. 2020, arXiv 2006.11477), XLS-R and MMS among them.

    Its middle layers know phones best (Pasad et al. 2021, arXiv 2107.04734).
    """

    model_class: ClassVar[str] = "Wav2Vec2Model"
    usual_layer: ClassVar[float] = 0.6


class WavLMEncoder(WaveformEncoder):
    """A `transformers.WavLMModel` (Chen et al. 2021, arXiv 2110.13900): gated relative positions in its attention."""

    model_class: ClassVar[str] = "WavLMModel"

    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Outputs of the blocks; the first one makes the relative positions that all of them use."""
        hidden, positions = self._placed(frames), None
        for block in self._encoder.layers:
            with warnings.catch_warnings():  # torch wants mask and positions of one type, transformers gives two
                warnings.simplefilter("ignore", UserWarning)
                hidden, positions = block(hidden, attention_mask=mask, position_bias=positions)[:2]
            yield hidden

    def _convert(self, blocks: nn.ModuleList) -> None:
        """The feed-forward products alone: torch computes the attention from its weights as they are."""
        for block in blocks:
            convert_linears(block.feed_forward, self.kind)  # type: ignore[arg-type]
