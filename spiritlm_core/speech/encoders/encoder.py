"""HuBERT and wav2vec 2.0 encoders over many clips: exact whatever they are batched with, only the layers needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging as transformers_logging

from spiritlm_core.speech.encoders.front_end import FrontEnd
from spiritlm_core.speech.encoders.precision import Precision, affine, convert_linears, kind_of

Waveform = NDArray[np.float32]
LayerFrames = dict[int, torch.Tensor]
"""Layer, counted from 1 → float32[N, D] of one clip."""

_CPU_BATCH, _GPU_BATCH = 1000, 10_000
_MOST_PADDING = 0.1


class SpeechEncoder:
    """Outputs of chosen transformer blocks of a `HubertModel` or `Wav2Vec2Model`.

    Clips of like length share a padded batch. The convolutions never see padding (see
    `front_end.FrontEnd`), the positional convolution sees zeros there as it does beyond
    the ends of a lone clip, attention masks it: neighbours reach no further than the rounding of floating-point
    numbers. Blocks above the highest layer asked for are not run.
    """

    def __init__(
        self, model: Any, layers: Sequence[int], *, normalize: bool = False, precision: Precision = "exact"
    ) -> None:
        """Copy what is needed of `model` onto its device; `model` itself stays as it is.

        Args:
            model: The `transformers` model.
            layers: Blocks whose outputs are wanted, counted from 1.
            normalize: Bring each waveform to zero mean and unit variance first, as the model's preprocessor says.
            precision: Of the matrix products.

        Raises:
            ModelReferenceError: The convolutions use an unknown activation.
            RecipeError: `precision` cannot be had on this device.
        """
        self.device: torch.device = model.device
        self.layers = tuple(sorted(set(layers)))
        self.kind = kind_of(precision, self.device.type)
        self.batch_frames = _GPU_BATCH if self.device.type != "cpu" else 0 if self.kind == "int8" else _CPU_BATCH
        self._normalize = normalize
        self.front_end = FrontEnd(model.feature_extractor, self.kind)
        self._norm = getattr(model.feature_projection, "layer_norm", None)
        projection = model.feature_projection.projection
        self._projection = affine(projection.weight, projection.bias, self.kind)
        self._pre_norm = bool(model.config.do_stable_layer_norm)
        self._encoder = _lone(model.encoder, max(self.layers))
        # GPUs have no fast kernel for a grouped convolution of bf16 numbers, and its share of the work is small.
        narrow = self.kind == "bf16" and self.device.type == "cpu"
        self._position = self._encoder.pos_conv_embed.to(torch.bfloat16 if narrow else torch.float32)
        convert_linears(self._encoder.layers, self.kind)

    def __call__(self, waveforms: Sequence[Waveform]) -> list[LayerFrames]:
        """Block outputs of each clip float32[T], in the order given; every clip must have at least one frame."""
        results: dict[int, LayerFrames] = {}
        for batch in batches([self.front_end.count(len(waveform)) for waveform in waveforms], self.batch_frames):
            results.update(zip(batch, self._batch([waveforms[i] for i in batch]), strict=True))
        return [results[i] for i in range(len(waveforms))]

    def final_norm(self, frames: torch.Tensor) -> torch.Tensor:
        """The last block's output as `last_hidden_state` has it: a pre-norm encoder ends in a norm."""
        normed: torch.Tensor = self._encoder.layer_norm(frames) if self._pre_norm else frames
        return normed

    @torch.inference_mode()
    def _batch(self, waveforms: list[Waveform]) -> list[LayerFrames]:
        clips = self.front_end([self._prepared(waveform) for waveform in waveforms])
        lengths = [len(clip) for clip in clips]
        frames = torch.split(self._projected(torch.cat(clips)), lengths)
        outputs = self._blocks(pad_sequence(list(frames), batch_first=True), torch.tensor(lengths))
        return [{layer: out[i, :length] for layer, out in outputs.items()} for i, length in enumerate(lengths)]

    def _prepared(self, waveform: Waveform) -> torch.Tensor:
        tensor = torch.from_numpy(waveform).to(self.device)
        if self._normalize:
            tensor = (tensor - tensor.mean()) / torch.sqrt(tensor.var(correction=0) + 1e-7)
        return tensor

    def _projected(self, frames: torch.Tensor) -> torch.Tensor:
        normed = frames.float() if self._norm is None else self._norm(frames.float())
        projected: torch.Tensor = self._projection(normed)
        return projected.float()

    def _blocks(self, padded: torch.Tensor, lengths: torch.Tensor) -> LayerFrames:
        """Outputs [B, L, D] of the wanted blocks, from frames [B, L, D] whose padding is zero."""
        mask: torch.Tensor | None = None
        if int(lengths.min()) < padded.shape[1]:
            mask = (torch.arange(padded.shape[1]) < lengths[:, None])[:, None, None].to(padded.device)
        hidden = padded + self._position(padded.to(self._position.conv.weight.dtype))
        if not self._pre_norm:
            hidden = self._encoder.layer_norm(hidden)
        outputs: LayerFrames = {}
        for layer, block in enumerate(self._encoder.layers, 1):
            output = block(hidden, attention_mask=mask)
            hidden = output[0] if isinstance(output, tuple) else output
            outputs |= {layer: hidden.float()} if layer in self.layers else {}
        return outputs


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


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' report about weights: blocks left out on purpose, missing ones that are an error here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def batches(frames: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices of clips in groups of like length: padded within `limit` frames, at most a tenth of them padding.

    With a `limit` of 0 each clip is alone.
    """
    batch: list[int] = []
    held = 0
    for index in sorted(range(len(frames)), key=lambda i: (frames[i], i)):
        padded = (len(batch) + 1) * frames[index]
        if batch and (padded > limit or held + frames[index] < (1 - _MOST_PADDING) * padded):
            yield batch
            batch, held = [], 0
        batch.append(index)
        held += frames[index]
    if batch:
        yield batch
