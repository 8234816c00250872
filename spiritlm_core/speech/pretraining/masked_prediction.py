"""HuBERT pre-training: the crops, the model, its masks and its loss (Hsu et al. 2021, arXiv 2106.07447, eq. 1-3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.functional import normalize as unit
from transformers import HubertConfig as HubertModelConfig
from transformers import HubertModel

from spiritlm_core.audio.codec import to_float32, to_int16
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import FRAME, RECEPTIVE_FIELD
from spiritlm_core.speech.mel import PREEMPHASIS, mel_centres
from spiritlm_core.speech.pretraining.config import HubertConfig, PerturbConfig

_CODE_SIZE = 256
_TEMPERATURE = 0.1
_SHORTEST_WINDOW = 80
_FILTER_GAIN = 3.0
_VOICES = 0.5  # share of mixed crops that get another voice rather than noise


@dataclass(frozen=True)
class Tape:
    """Clips joined end to end on the 25 Hz grid, so that every crop is full and needs no padding.

    All of it is kept in memory, 115 MB for an hour, on every rank.
    """

    samples: NDArray[np.int16]  # [640 N + 80]
    labels: NDArray[np.int64]  # [N]

    @classmethod
    def of(cls, waveforms: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int64]]) -> Tape:
        """Join clips; `labels` holds one entry per whole 25 Hz frame of each clip."""
        pieces = [to_int16(wave[: FRAME * len(units)]) for wave, units in zip(waveforms, labels, strict=True)]
        return cls(np.concatenate([*pieces, np.zeros(RECEPTIVE_FIELD - FRAME, np.int16)]), np.concatenate(labels))

    def crop(
        self, frames: int, rng: np.random.Generator, perturb: PerturbConfig | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One random crop: waveform float32[640 frames + 80] and labels int64[frames].

        A perturbed waveform keeps the labels of the clean one, each at the unit that now sees its middle.
        """
        speed = draw_speed(perturb, rng)
        samples = FRAME * frames + RECEPTIVE_FIELD - FRAME
        start = self._start(source_length(samples, speed), rng)
        waveform = play(self._read(FRAME * start, source_length(samples, speed)), speed, samples)
        middle = (FRAME * np.arange(frames) + RECEPTIVE_FIELD / 2) * speed
        nearest = start + np.round((middle - RECEPTIVE_FIELD / 2) / FRAME).astype(np.int64)
        labels = self.labels[np.clip(nearest, 0, len(self.labels) - 1)]
        return self._disturb(waveform, perturb, rng) if perturb else waveform, labels

    def _disturb(self, waveform: Waveform, perturb: PerturbConfig, rng: np.random.Generator) -> Waveform:
        """Another microphone, sometimes noise or, as often, another voice, another distance."""
        waveform = colour(waveform, perturb.colour, rng)
        if rng.random() < perturb.noise:
            voice, snr = rng.random() < _VOICES, rng.uniform(*perturb.snr)
            count = len(waveform)
            other = self._read(FRAME * self._start(count, rng), count) if voice else noise(count, rng)
            waveform = mix(waveform, other, snr)
        return gain(waveform, rng)

    def _start(self, samples: int, rng: np.random.Generator) -> int:
        """A random frame that `samples` follow."""
        return int(rng.integers(0, max(1, (len(self.samples) - samples) // FRAME + 1)))

    def _read(self, start: int, count: int) -> Waveform:
        """`count` samples from `start`, zeros where the tape is shorter."""
        samples = self.samples[start : start + count]
        return to_float32(np.pad(samples, (0, count - len(samples))))


class MaskedPrediction(nn.Module):
    """A HuBERT with the head that predicts the label of every frame, masked or not."""

    def __init__(self, config: HubertConfig, clusters: int) -> None:
        super().__init__()
        self.hubert = HubertModel(hubert_config(config))
        self.projection = nn.Linear(config.hidden_size, _CODE_SIZE)
        self.codes = nn.Parameter(torch.randn(clusters, _CODE_SIZE))
        if (window := config.conv_kernels[0]) >= _SHORTEST_WINDOW:
            filters = gabor_filters(config.conv_channels[0], window)
            self.hubert.get_parameter("feature_extractor.conv_layers.0.conv.weight").data.copy_(filters)

    def forward(self, waveforms: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Logits float32[B, N, clusters] of eq. 3: cosine between projected output and code, over 0.1.

        Of waveforms float32[B, T] at 16 kHz; where bool[B, N] is true, the encoder sees the mask embedding instead.
        """
        output = self.hubert(waveforms, mask_time_indices=masked).last_hidden_state
        return unit(self.projection(output), dim=-1) @ unit(self.codes, dim=-1).T / _TEMPERATURE


def hubert_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    masked: torch.Tensor,
    alpha: float,
    counts: tuple[int, int] | None = None,
) -> torch.Tensor:
    """``alpha L_m + (1 - alpha) L_u``: mean cross-entropy of masked and of unmasked frames (§II.B).

    Of logits float32[B, N, clusters], labels int64[B, N] and masked bool[B, N]; `counts` are the masked and unmasked
    frames to divide by, where this is a share of a larger batch.
    """
    frames = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    hidden, seen = counts or (int(masked.sum()), int((~masked).sum()))
    masked_loss, other_loss = frames[masked].sum() / max(1, hidden), frames[~masked].sum() / max(1, seen)
    return alpha * masked_loss + (1 - alpha) * other_loss


def draw_masks(shape: tuple[int, int], prob: float, length: int, rng: np.random.Generator) -> torch.Tensor:
    """Span masks, bool[batch, frames]: ``prob * frames`` starts without replacement, each `length` frames (§II.B)."""
    batch, frames = shape
    length = min(length, frames)
    spans = max(1, round(prob * frames))
    masks = np.zeros((batch, frames + length), bool)
    for row in masks:
        starts = rng.choice(frames - length + 1, min(spans, frames - length + 1), replace=False)
        row[starts[:, None] + np.arange(length)] = True
    return torch.from_numpy(masks[:, :frames])


def hubert_config(config: HubertConfig) -> HubertModelConfig:
    """The transformers configuration: layer norm in front of each block and in the convolutions, no layer drop.

    Layer norm in the convolutions keeps a clip independent of what it is batched or joined with.
    """
    settings = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.hidden_size,
        "conv_dim": config.conv_channels,
        "conv_kernel": config.conv_kernels,
        "conv_stride": config.conv_strides,
        "num_feat_extract_layers": len(config.conv_channels),
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": config.position_kernel,
        "num_conv_pos_embedding_groups": np.gcd(config.hidden_size, 16).item(),
        "mask_time_prob": config.mask_prob,
        "mask_time_length": config.mask_length,
        "layerdrop": 0.0,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.dropout,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
    }
    return HubertModelConfig.from_dict(settings)


def gabor_filters(channels: int, kernel: int) -> torch.Tensor:
    """Start values of the first convolution: Gabor filters on the mel scale, float32[channels, 1, kernel].

    After LEAF (Zeghidour et al. 2021, arXiv 2101.08596), in four phases a quarter turn apart: behind a rectifier
    and summed by the next convolution these give the magnitude of a band, which a mel spectrogram holds.
    """
    bands = -(-channels // 4)
    edges = mel_centres(bands, 60.0, 7600.0)
    centres, width = edges[1:-1, None], (edges[2:] - edges[:-2])[:, None] / 2
    time = (np.arange(kernel) - (kernel - 1) / 2)[None] / SAMPLE_RATE
    deviation = np.minimum(kernel / SAMPLE_RATE / 5, 1 / (np.pi * width))
    envelope = np.exp(-((time / deviation) ** 2) / 2)
    emphasis = np.abs(1 - PREEMPHASIS * np.exp(-2j * np.pi * centres / SAMPLE_RATE))
    envelope *= _FILTER_GAIN * emphasis / np.sqrt((envelope**2).sum(axis=1, keepdims=True))
    phases = np.arange(4)[None, :, None] * np.pi / 2
    filters = envelope[:, None] * np.cos(2 * np.pi * centres[:, None] * time[:, None] + phases)
    return torch.from_numpy(filters.reshape(-1, 1, kernel)[:channels].astype(np.float32))


_POINTS = 8
_GAIN = 6.0
_SILENCE = 1e-4


def draw_speed(config: PerturbConfig | None, rng: np.random.Generator) -> float:
    """How many times faster than recorded a crop is played; 1 without perturbation."""
    return float(config.speed ** rng.uniform(-1, 1)) if config else 1.0


def source_length(samples: int, speed: float) -> int:
    """Recorded samples needed for `samples` at `speed`."""
    return ceil(samples * speed) + 1


def play(source: Waveform, speed: float, samples: int) -> Waveform:
    """`source` at `speed`, float32[samples], by linear interpolation: pitch, formants and tempo all change."""
    if speed == 1.0:
        return source[:samples]
    places = np.arange(samples) * speed
    return np.interp(places, np.arange(len(source)), source).astype(np.float32)


def colour(waveform: Waveform, deviation: float, rng: np.random.Generator) -> Waveform:
    """Random gain over frequency, linear in decibels between eight points from 0 to 8 kHz."""
    spectrum = rfft(waveform)
    return irfft(spectrum * _curve(len(spectrum), deviation, rng), len(waveform))


def noise(samples: int, rng: np.random.Generator) -> Waveform:
    """Stationary noise of a random spectrum, float32[samples]."""
    return colour(rng.standard_normal(samples, np.float32), 8.0, rng)


def mix(waveform: Waveform, other: Waveform, snr: float) -> Waveform:
    """Add `other`, scaled to `snr` decibels below the mean power of `waveform`."""
    gain = _rms(waveform) / _rms(other) * 10 ** (-snr / 20)
    return waveform + np.float32(gain) * other


def gain(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Up to 6 dB louder or softer."""
    return waveform * np.float32(10 ** (rng.uniform(-_GAIN, _GAIN) / 20))


def _curve(bins: int, deviation: float, rng: np.random.Generator) -> NDArray[np.float32]:
    decibels = np.interp(np.linspace(0, _POINTS - 1, bins), np.arange(_POINTS), rng.normal(0, deviation, _POINTS))
    return np.asarray(10 ** (decibels / 20), np.float32)


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) + _SILENCE
