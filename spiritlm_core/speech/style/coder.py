"""Style units: one vector per second of how something is said, and its nearest cluster.

Spirit LM (arXiv 2402.05755, §3.1) clusters pooled 1 Hz features of a speech-style encoder. Here the second is
described by prosody (energy, spectral tilt, voicing, F0, rate of change) and by a low layer of the encoder, which holds
voice quality and channel rather than phones, pooled to mean and deviation. The mean of the speaker is removed; that
of a speaker who was not there when the model was fitted is estimated from the piece at hand. The released model has a
wav2vec2 sequence classifier in place of all this.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import Wav2Vec2ForSequenceClassification

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.config import StyleConfig
from spiritlm_core.speech.encoders.encoder import configuration, preprocessor, pretrained
from spiritlm_core.speech.encoders.precision import Precision
from spiritlm_core.speech.encoders.waveform import Wav2Vec2Encoder
from spiritlm_core.speech.grid import style_count
from spiritlm_core.speech.mel import log_mel
from spiritlm_core.speech.pitch.f0 import Melody
from spiritlm_core.speech.quantizers.kmeans import Frames, KMeans, fit_kmeans

PROSODY = (
    "energy",
    "energy_deviation",
    "tilt",
    "tilt_deviation",
    "change",
    "voiced",
    "f0",
    "f0_deviation",
    "f0_slope",
)
"""Prosodic features of a second, in the order of the vector's head."""

_REFERENCE = 200.0

_PRIOR_SECONDS = 2.0
"""How many seconds of a piece the mean over everybody is worth in the estimate of an unknown speaker's mean."""


def second_vectors(waveform: NDArray[np.float32], layer: Frames, melody: Melody) -> Frames:
    """Raw features of each second begun, float32[K, 9 + 2 D]; the F0 entries of an unvoiced second are NaN.

    Of one piece float32[T] of at least 1280 samples, features of the encoder float32[N, D] at 25 Hz, and its F0.
    """
    count = style_count(len(waveform))
    bands = log_mel(torch.from_numpy(waveform)).numpy()
    rows = []
    for second in range(count):
        frames = _second(layer, second, 25)
        track, voiced = _second(melody.f0, second, 100), _second(melody.voiced, second, 100)
        spectrum = _spectrum(_second(bands, second, 100))
        rows.append([*spectrum, *_melody(track, voiced), *frames.mean(axis=0), *frames.std(axis=0)])
    return np.array(rows, np.float32)


def _second(frames: NDArray[Any], second: int, rate: int) -> NDArray[Any]:
    """Frames of one second; the last frame there is, where a second is too short to have one."""
    start = min(second * rate, len(frames) - 1)
    return frames[start : max(start + 1, (second + 1) * rate)]


def _spectrum(bands: Frames) -> list[float]:
    """Mean and deviation of energy and tilt (over the mel bands), and mean change from frame to frame."""
    energy = bands.mean(axis=1)
    position = np.linspace(-1, 1, bands.shape[1])
    tilt = bands @ position / (position**2).sum()
    change = np.abs(np.diff(bands, axis=0)).mean() if len(bands) > 1 else 0.0
    return [energy.mean(), energy.std(), tilt.mean(), tilt.std(), change]


def _melody(f0: Frames, voiced: NDArray[np.bool_]) -> list[float]:
    """Voiced share, and mean (octaves over 200 Hz), deviation and slope (octaves per second) of voiced F0."""
    share = float(voiced.mean())
    if not voiced.any():
        return [share, np.nan, np.nan, np.nan]
    octaves, time = np.log2(f0[voiced] / _REFERENCE), np.flatnonzero(voiced) / 100
    time -= time.mean()
    slope = float(time @ octaves / max(time @ time, 1e-4))
    return [share, float(octaves.mean()), float(octaves.std()), slope]


@dataclass(frozen=True)
class StyleModel:
    """Speaker means, a projection to few dimensions of unit variance, and k-means there."""

    layer: int
    speakers: dict[str, int]  # row of `means`; row 0 is the mean over everybody
    means: Frames  # [1 + S, 9 + 2 D]
    projection: Frames  # [9 + 2 D, 9 + C]
    kmeans: KMeans

    @property
    def size(self) -> int:
        """Number of style units."""
        return len(self.kmeans.centres)

    def project(self, vectors: Frames, speaker: str | None) -> Frames:
        """Vectors without the speaker's mean, float32[K, 9 + C]; what is missing counts as average."""
        return self.flat(vectors - self._mean_of(vectors, speaker))

    def flat(self, centred: Frames) -> Frames:
        """Centred vectors float32[K, 9 + 2 D] in the space of the clusters, float32[K, 9 + C]."""
        return np.nan_to_num(centred, nan=0.0) @ self.projection

    def _mean_of(self, vectors: Frames, speaker: str | None) -> Frames:
        row = self.speakers.get(speaker or "", 0)
        return self.means[row] if row else estimated_mean(vectors, self.means[0])

    def encode(self, vectors: Frames, speaker: str | None = None) -> NDArray[np.int8]:
        """Units int8[K]; the mean of a speaker who was not in the train split is estimated from `vectors`."""
        return self.kmeans.assign(self.project(vectors, speaker)).astype(np.int8)

    def save(self, folder: Path) -> None:
        """Write ``style.json``, ``style.safetensors`` and ``kmeans.safetensors``."""
        facts = {"layer": self.layer, "speakers": self.speakers, "prosody": PROSODY}
        (folder / "style.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
        save_file({"means": self.means, "projection": self.projection}, folder / "style.safetensors")
        self.kmeans.save(folder / "kmeans.safetensors")

    @classmethod
    def load(cls, folder: Path) -> StyleModel:
        """Read what :meth:`save` wrote. Raises ModelReferenceError: the folder does not hold such a model."""
        try:
            facts = json.loads((folder / "style.json").read_text())
            arrays = load_file(folder / "style.safetensors")
            kmeans = KMeans.load(folder / "kmeans.safetensors")
            return cls(facts["layer"], facts["speakers"], arrays["means"], arrays["projection"], kmeans)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
            raise ModelReferenceError(f"{folder} is not a style model of this project: {error}") from error


def fit_style(vectors: list[Frames], speakers: list[str | None], config: StyleConfig) -> StyleModel:
    """Fit the model on vectors float32[K, 9 + 2 D] of clips and the speakers of these clips."""
    names = sorted({speaker for speaker in speakers if speaker})
    rows = {name: np.concatenate([v for v, s in zip(vectors, speakers, strict=True) if s == name]) for name in names}
    everybody = _mean(np.concatenate(vectors), np.zeros(vectors[0].shape[1], np.float32))
    means = np.stack([everybody, *(_mean(rows[name], everybody) for name in names)])
    index = {name: i + 1 for i, name in enumerate(names)}
    centred = np.concatenate(
        [v - (means[index[s]] if s else estimated_mean(v, everybody)) for v, s in zip(vectors, speakers, strict=True)]
    )
    known = np.nan_to_num(centred, nan=0.0)
    projection = _projection(known, config.components)
    points, facts = known @ projection, {"layer": config.layer}
    kmeans = fit_kmeans(points, config.clusters, seed=config.seed, restarts=config.restarts, facts=facts)
    return StyleModel(config.layer, index, means, projection, kmeans)


def estimated_mean(vectors: Frames, everybody: Frames) -> Frames:
    """The likely mean float32[9 + 2 D] of whoever speaks a piece float32[K, 9 + 2 D]: its own, drawn to everybody's.

    The usual posterior mean, with a prior that is worth `_PRIOR_SECONDS`: a second alone says little about the speaker.
    """
    own, count = _mean(vectors, everybody), len(vectors)
    return ((count * own + _PRIOR_SECONDS * everybody) / (count + _PRIOR_SECONDS)).astype(np.float32)


def _mean(vectors: Frames, otherwise: Frames) -> Frames:
    """Mean over the rows that are there, `otherwise` where there is none."""
    known = ~np.isnan(vectors)
    total = np.where(known, vectors, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), otherwise).astype(np.float32)


def _projection(centred: Frames, components: int) -> Frames:
    """Prosody scaled to unit variance, beside the principal components of the rest, whitened."""
    head = len(PROSODY)
    values, axes = np.linalg.eigh(np.cov(centred[:, head:], rowvar=False).astype(np.float64))
    order = np.argsort(values)[::-1][:components]
    projection = np.zeros((centred.shape[1], head + len(order)), np.float32)
    projection[np.arange(head), np.arange(head)] = 1 / (centred[:, :head].std(axis=0) + 1e-5)
    projection[head:, head:] = axes[:, order] / np.sqrt(np.maximum(values[order], 1e-8))
    return projection


_MODEL = "Wav2Vec2ForSequenceClassification"

STRIDE = 320  # samples from one frame of the encoder to the next: 50 Hz

BLOCK = 50  # frames averaged for one unit: one second


class StyleClassifier:
    """One style unit per second: frames, projected, averaged over 50 of them, classified.

    A piece of *n* samples has ``ceil(F / 50)`` units, where F is the number of frames of the encoder (for the usual
    convolutions ``(n - 400) // 320 + 1``); the last unit averages what frames are left.
    """

    def __init__(
        self, model: Wav2Vec2ForSequenceClassification, *, normalize: bool = True, precision: Precision = "exact"
    ) -> None:
        """`normalize`: bring each piece to zero mean and unit variance first, as the model's preprocessor says."""
        self._last = int(model.config.num_hidden_layers)
        self.encoder = Wav2Vec2Encoder(model.wav2vec2, self._last, normalize=normalize, precision=precision)
        self._projector, self._classifier = model.projector, model.classifier

    @property
    def size(self) -> int:
        """Number of style units."""
        return int(self._classifier.out_features)

    @torch.inference_mode()
    def logits(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Class scores float32[K, classes] of each piece float32[T] of at least 1280 samples."""
        outputs = self.encoder.outputs(waveforms, [self._last])
        clips = [self.encoder.final_norm(frames[self._last]) for frames in outputs]
        # The projection is linear, so it may as well follow the average.
        seconds = [torch.stack([block.mean(dim=0) for block in torch.split(clip, BLOCK)]) for clip in clips]
        scores = self._classifier(self._projector(torch.cat(seconds))).float().cpu().numpy()
        return np.split(scores, np.cumsum([len(second) for second in seconds])[:-1])

    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int8]]:
        """Units int8[K] of each piece float32[T] of at least 1280 samples."""
        return [scores.argmax(axis=1).astype(np.int8) for scores in self.logits(waveforms)]

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", precision: Precision = "exact") -> StyleClassifier:
        """Load a Hugging Face folder.

        Raises ModelReferenceError: not a wav2vec2 classifier at 16 kHz and 50 Hz with at most 128 classes, or weights
        are missing.
        """
        config = configuration(_MODEL, folder)
        if config.model_type != "wav2vec2" or prod(config.conv_stride) != STRIDE:
            raise ModelReferenceError(f"{folder} is not a wav2vec2 style classifier with a frame per {STRIDE} samples")
        if config.num_labels > 128:
            raise ModelReferenceError(f"{folder} has {config.num_labels} classes; style units are at most 128")
        model = pretrained(_MODEL, folder, config, spare=("wav2vec2.masked_spec_embed",), use_safetensors=True)
        normalize = bool(preprocessor(folder).get("do_normalize", True))
        return cls(model.to(device), normalize=normalize, precision=precision)


def load_style(folder: Path, device: str = "cpu", precision: Precision = "exact") -> StyleModel | StyleClassifier:
    """The style model in `folder`: one fitted by this project (``style.json``) or a wav2vec2 classifier.

    Raises ModelReferenceError: there is neither, or a damaged one.
    """
    return StyleClassifier.load(folder, device, precision) if _is_classifier(folder) else StyleModel.load(folder)


def count_styles(folder: Path) -> int:
    """Number of units of the style model in `folder`, without the weights of a classifier.

    Raises ModelReferenceError: there is no style model, or a damaged one.
    """
    return int(configuration(_MODEL, folder).num_labels) if _is_classifier(folder) else StyleModel.load(folder).size


def _is_classifier(folder: Path) -> bool:
    return (folder / "config.json").exists() and not (folder / "style.json").exists()
