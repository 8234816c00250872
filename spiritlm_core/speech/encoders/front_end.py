"""The convolutions of HuBERT and wav2vec 2.0 over many clips at once, in blocks.

The convolutions have no padding, so a frame depends on its own few samples alone and a clip may be cut anywhere on
the frame grid. Clips become blocks: on a CPU one after another, each small enough to stay in the cache from the
first convolution to the last; on a GPU all of one shape and all at once. No frame ever sees a neighbouring clip.
A group norm over time does need the whole clip. It sits behind the first convolution, a linear map of ten
samples, so its mean and variance follow from those of the windows of ten samples, and it folds into the weights.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.encoders.precision import Affine, Kind
from spiritlm_core.speech.grid import reach_of

_BLOCK_SAMPLES = 16_000


class FrontEnd:
    """`feature_extractor` of a `transformers` HuBERT or wav2vec 2.0, for many clips."""

    def __init__(self, feature_extractor: nn.Module, kind: Kind = "fp32") -> None:
        """Take over the weights of `feature_extractor`, where they are.

        Raises ModelReferenceError: its activation is not GELU.
        """
        layers: list[Any] = list(feature_extractor.conv_layers)  # type: ignore[arg-type]
        for layer in layers:
            if (name := type(layer.activation).__name__) not in {"GELUActivation", "GELU"}:
                raise ModelReferenceError(f"feat_extract_activation is {name}: only gelu is known")
        sizes = [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in layers]
        self.reach, self.hop = reach_of(*zip(*sizes, strict=True))
        self._first = _First(layers[0])
        self._on_cpu = layers[0].conv.weight.device.type == "cpu"
        self._rest = [_Convolution(layer, kind) for layer in layers[1:]]
        self._block = max(1, _BLOCK_SAMPLES // self.hop)

    def count(self, samples: int) -> int:
        """Frames of a clip."""
        return max(0, (samples - self.reach) // self.hop + 1)

    def __call__(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Frames [N, C] of each clip float32[T], ``N = count(T) >= 1``; bf16 in that precision."""
        if self._on_cpu:
            return [self._clip(waveform) for waveform in waveforms]
        return self._together(waveforms)

    def _clip(self, waveform: torch.Tensor) -> torch.Tensor:
        folded, frames = self._first.folded(waveform), self.count(len(waveform))
        edges = [*range(0, frames, self._block), frames]
        blocks = [waveform[a * self.hop : (b - 1) * self.hop + self.reach] for a, b in pairwise(edges)]
        return torch.cat([self._frames(block, *folded) for block in blocks])

    def _together(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """All clips in blocks of one shape; what a last block has too much is cut off again."""
        counts = [self.count(len(waveform)) for waveform in waveforms]
        blocks = [-(-count // self._block) for count in counts]
        step, size = self._block * self.hop, (self._block - 1) * self.hop + self.reach
        cut = [_padded(w, (n - 1) * step + size).unfold(0, size, step) for w, n in zip(waveforms, blocks, strict=True)]
        weights, biases = zip(*(self._first.folded(waveform) for waveform in waveforms), strict=True)
        each = torch.repeat_interleave(torch.tensor(blocks))
        frames = self._frames(torch.cat(cut), torch.stack(weights)[each], torch.stack(biases)[each])
        clips = torch.split(frames.flatten(0, 1), [n * self._block for n in blocks])
        return [clip[:count] for clip, count in zip(clips, counts, strict=True)]

    def _frames(self, samples: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        frames = self._first(samples, weight, bias)
        for convolution in self._rest:
            frames = convolution(frames)
        return frames


class _First:
    """The first convolution, its norm and GELU: samples [..., T] to frames [..., N, C]."""

    def __init__(self, layer: Any) -> None:
        self._kernel, self._stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        self._weight = layer.conv.weight.detach()[:, 0].float()
        bias = layer.conv.bias
        self._bias = self._weight.new_zeros(len(self._weight)) if bias is None else bias.detach().float()
        norm = getattr(layer, "layer_norm", None)
        self._group = norm if isinstance(norm, nn.GroupNorm) else None
        self._layer = norm if isinstance(norm, nn.LayerNorm) else None

    def folded(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [C, k] and bias [1, C] that do convolution and group norm over this clip at once."""
        if self._group is None:
            return self._weight, self._bias[None]
        windows = waveform.double().unfold(0, self._kernel, self._stride)
        mean = windows.mean(dim=0)
        covariance = (windows - mean).T @ (windows - mean) / len(windows)
        weight = self._weight.double()
        variance = ((weight @ covariance) * weight).sum(dim=1)
        gain = self._group.weight.double() / torch.sqrt(variance + self._group.eps)
        # The norm subtracts the convolution's own bias again.
        bias = self._group.bias.double() - gain * (weight @ mean)
        return (gain[:, None] * weight).float(), bias[None].float()

    def __call__(self, samples: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        windows = samples.unfold(-1, self._kernel, self._stride)
        return _activated((windows @ weight.transpose(-1, -2)).add_(bias), self._layer)


class _Convolution:
    """A later convolution as a matrix product over copied windows: frames [..., T, C] to [..., N, C']."""

    def __init__(self, layer: Any, kind: Kind) -> None:
        self._kernel, self._stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        # Taps outside, channels inside: the order of frames in memory.
        self._affine = Affine(layer.conv.weight.permute(0, 2, 1).flatten(1), layer.conv.bias, kind)
        self._norm = getattr(layer, "layer_norm", None)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        windows = self._affine.prepared(frames).unfold(-2, self._kernel, self._stride).transpose(-1, -2).flatten(-2)
        return _activated(self._affine(windows), self._norm)


def _activated(frames: torch.Tensor, norm: nn.LayerNorm | None) -> torch.Tensor:
    if norm is not None:
        frames = layer_norm(frames.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return gelu(frames)


def _padded(waveform: torch.Tensor, samples: int) -> torch.Tensor:
    """Zeros behind, or what is not needed cut off."""
    return nn.functional.pad(waveform, (0, max(0, samples - len(waveform))))[:samples]
