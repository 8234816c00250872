"""The pitch estimator FCPE over many clips at once, with the weights that `torchfcpe` bundles (MIT).

FCPE (arXiv 2509.15140) is a stack of conformer convolution modules over a mel spectrogram. `torchfcpe` runs it one
clip at a time with channels in front of time; here clips are rows of one matrix and the depth-wise convolution has
channels last, which a CPU computes several times as fast. Clips are told apart where it matters: the group norm
takes its mean and variance from each clip alone, and convolutions see zeros beyond its ends.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import conv1d, conv2d, glu, group_norm, layer_norm, leaky_relu, pad, silu
from torch.nn.utils.rnn import pad_sequence

from spiritlm_core.speech.encoders.encoder import batches
from spiritlm_core.speech.encoders.precision import Affine, Kind, Precision, affine, kind_of

HOP = 160
_RATE = 16_000
_CPU_BATCH, _GPU_BATCH = 4000, 100_000


class Fcpe:
    """F0 tracks of clips."""

    def __init__(self, device: str = "cpu", precision: Precision = "exact") -> None:
        """Load the bundled model; `precision` is that of its matrix products."""
        bundled = _bundled(device)
        kind = kind_of(precision, device)
        self._device = device
        self._mel = bundled.wav2mel
        self._decode = bundled.model.latent2cents_local_decoder
        self._hertz = bundled.model.cent_to_f0
        first, norm, _, second = bundled.model.input_stack
        self._first, self._second = (_affine_of(convolution, kind) for convolution in (first, second))
        self._group = norm
        self._blocks = [_Block(layer.conformer.net, kind) for layer in bundled.model.net.encoder_layers]
        self._norm = bundled.model.norm
        projection = bundled.model.output_proj
        self._output = affine(projection.weight, projection.bias, kind)
        limit = _CPU_BATCH if device == "cpu" else _GPU_BATCH
        self._limit = 0 if kind == "int8" else limit

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[NDArray[np.float32]], threshold: float) -> list[NDArray[np.float32]]:
        """F0 in hertz, float32[T // 160 + 1], of each clip float32[T]; 0 where confidence is below `threshold`."""
        tracks: dict[int, NDArray[np.float32]] = {}
        for batch in batches([len(waveform) // HOP + 1 for waveform in waveforms], self._limit):
            mels = [self._mel_of(waveforms[i]) for i in batch]
            f0 = self._f0(pad_sequence(mels, batch_first=True), [len(mel) for mel in mels], threshold).cpu().numpy()
            tracks.update({i: f0[row, : len(mel)] for row, (i, mel) in enumerate(zip(batch, mels, strict=True))})
        return [tracks[i] for i in range(len(waveforms))]

    def _mel_of(self, waveform: NDArray[np.float32]) -> torch.Tensor:
        mel: torch.Tensor = self._mel(torch.from_numpy(waveform).to(self._device)[None, :, None], _RATE)[0]
        return mel

    def _f0(self, mels: torch.Tensor, lengths: list[int], threshold: float) -> torch.Tensor:
        """F0 [B, T] from padded mel spectrograms [B, T, 128]."""
        inside = torch.arange(mels.shape[1])[None, :, None] < torch.tensor(lengths)[:, None, None]
        inside = inside.to(mels.device, torch.float32)
        frames = self._first(_three_taps(mels))
        frames = leaky_relu(self._normed(frames, lengths), 0.01) * inside
        frames = self._second(_three_taps(frames)).float()
        for block in self._blocks:
            frames = frames + block(frames, inside)
        frames = layer_norm(frames, self._norm.normalized_shape, self._norm.weight, self._norm.bias, self._norm.eps)
        latent = torch.sigmoid(self._output(frames).float())
        f0: torch.Tensor = self._hertz(self._decode(latent, threshold))[..., 0]
        return f0

    def _normed(self, frames: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Group norm of each clip over its own frames; what lies beyond becomes zero."""
        norm, normed = self._group, torch.zeros_like(frames, dtype=torch.float32)
        for row, length in enumerate(lengths):
            clip = frames[row, :length].float().T[None]
            normed[row, :length] = group_norm(clip, norm.num_groups, norm.weight, norm.bias, norm.eps)[0].T
        return normed


class _Block:
    """A conformer convolution module on [B, T, C]: norm, gated widening, depth-wise convolution, narrowing."""

    def __init__(self, layers: nn.Sequential, kind: Kind) -> None:
        modules: list[Any] = [m for m in layers if isinstance(m, nn.LayerNorm | nn.Conv1d) or hasattr(m, "conv")]
        self._norm, widen, depth_wise, narrow = modules
        self._widen, self._narrow = _affine_of(widen, kind), _affine_of(narrow, kind)
        convolution = depth_wise.conv
        self._kernel = convolution.weight.detach()
        self._bias = convolution.bias.detach()
        self._pad = convolution.padding[0]
        self._channels_last = self._kernel[:, :, None].contiguous(memory_format=torch.channels_last)

    def __call__(self, frames: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        normed = layer_norm(frames, self._norm.normalized_shape, self._norm.weight, self._norm.bias, self._norm.eps)
        gated = glu(self._widen(normed).float(), dim=-1) * inside
        narrowed: torch.Tensor = self._narrow(silu(self._mixed(gated)))
        return narrowed.float()

    def _mixed(self, frames: torch.Tensor) -> torch.Tensor:
        """The depth-wise convolution over time of [B, T, C]; each device in the order of memory it is fast at."""
        channels = frames.shape[-1]
        if frames.is_cuda:
            rows = frames.transpose(1, 2).contiguous()
            return conv1d(rows, self._kernel, self._bias, padding=self._pad, groups=channels).transpose(1, 2)
        image = frames[:, None].permute(0, 3, 1, 2)  # [B, C, 1, T] in channels-last memory is the [B, T, C] we have
        mixed = conv2d(image, self._channels_last, self._bias, padding=(0, self._pad), groups=channels)
        return mixed.permute(0, 2, 3, 1)[:, 0]


def _affine_of(convolution: nn.Conv1d, kind: Kind) -> Affine:
    """A convolution as an affine map of its taps, joined in the order of time."""
    return affine(convolution.weight.permute(0, 2, 1).flatten(1), convolution.bias, kind)


def _three_taps(frames: torch.Tensor) -> torch.Tensor:
    """Each frame with its neighbours, zeros beyond the ends: [B, T, C] to [B, T, 3 C]."""
    padded = pad(frames, (0, 0, 1, 1))
    return torch.cat([padded[:, :-2], frames, padded[:, 2:]], dim=-1)


@cache
def _bundled(device: str) -> Any:
    """The bundled model; it reports on standard output, which belongs to our caller."""
    with redirect_stdout(io.StringIO()):
        import torchfcpe

        return torchfcpe.spawn_bundled_infer_model(device).eval()
