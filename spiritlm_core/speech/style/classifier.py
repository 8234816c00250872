"""Style units from a wav2vec2 sequence classifier, as in the released Spirit LM (arXiv 2402.05755, §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Wav2Vec2ForSequenceClassification

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.encoders.encoder import configuration, preprocessor, pretrained
from spiritlm_core.speech.encoders.precision import Precision
from spiritlm_core.speech.encoders.waveform import Wav2Vec2Encoder
from spiritlm_core.speech.style.coder import StyleModel

_MODEL = "Wav2Vec2ForSequenceClassification"

STRIDE = 320
"""Samples from one frame of the encoder to the next: 50 Hz."""

BLOCK = 50
"""Frames averaged for one unit: one second."""


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

        Raises:
            ModelReferenceError: Not a wav2vec2 classifier at 16 kHz and 50 Hz with at most 128 classes, or weights
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

    Raises:
        ModelReferenceError: There is neither, or a damaged one.
    """
    return StyleClassifier.load(folder, device, precision) if _is_classifier(folder) else StyleModel.load(folder)


def count_styles(folder: Path) -> int:
    """Number of units of the style model in `folder`, without the weights of a classifier.

    Raises:
        ModelReferenceError: There is no style model, or a damaged one.
    """
    return int(configuration(_MODEL, folder).num_labels) if _is_classifier(folder) else StyleModel.load(folder).size


def _is_classifier(folder: Path) -> bool:
    return (folder / "config.json").exists() and not (folder / "style.json").exists()
