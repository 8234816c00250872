"""HuBERT features: any `transformers.HubertModel` folder, brought to 25 Hz."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import HubertConfig, HubertModel

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.references.weights import check_weights
from spiritlm_core.speech.config import FRAME, on_grid
from spiritlm_core.speech.encoders.encoder import SpeechEncoder, Waveform, quiet_loading
from spiritlm_core.speech.encoders.precision import Precision
from spiritlm_core.speech.types import hubert_count

Features = dict[int, NDArray[np.float32]]
"""Layer (counted from 1) → float32[N, D]."""


class HubertFeatures:
    """Features of chosen layers of a HuBERT at one frame per 640 samples.

    A layer's features are the output of that transformer block, counted from 1; blocks above the highest layer
    asked for are not even loaded. A model with a finer step (50 Hz in most published ones) has consecutive frames
    averaged, which gives as many frames as the 25 Hz convolutions do.
    """

    def __init__(
        self, model: HubertModel, layers: Sequence[int], *, normalize: bool = False, precision: Precision = "exact"
    ) -> None:
        """Take a copy of what `layers` need of `model`; see `encoder.SpeechEncoder`."""
        self.encoder = SpeechEncoder(model, layers, normalize=normalize, precision=precision)
        self.width = int(model.config.hidden_size)
        self._pool = FRAME // prod(model.config.conv_stride)

    @classmethod
    def load(
        cls, folder: Path, layers: Sequence[int], device: str = "cpu", precision: Precision = "exact"
    ) -> HubertFeatures:
        """Load a Hugging Face HuBERT folder.

        Raises:
            ModelReferenceError: Not a HuBERT, not at 16 kHz, no 25 Hz grid, too few layers, or weights missing.
        """
        config = _read_config(folder, max(layers))
        check_weights(folder)
        with quiet_loading():
            model, found = HubertModel.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True
            )
        if missing := sorted(set(found["missing_keys"]) - {"masked_spec_embed"}):
            raise ModelReferenceError(f"{folder} lacks weights of a HuBERT: {', '.join(missing[:5])}")
        normalize = bool(_preprocessor(folder).get("do_normalize", False))
        return cls(model.to(device), layers, normalize=normalize, precision=precision)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.encoder.device

    def __call__(self, waveforms: Sequence[Waveform]) -> list[Features]:
        """Features of each waveform of at least 1280 samples, in the order given, on the CPU."""
        return [{layer: f.cpu().numpy() for layer, f in clip.items()} for clip in self.tensors(waveforms)]

    @torch.inference_mode()
    def tensors(self, waveforms: Sequence[Waveform]) -> list[dict[int, torch.Tensor]]:
        """The same, as tensors where the model is."""
        counts = [hubert_count(len(waveform)) for waveform in waveforms]
        clips = self.encoder(waveforms)
        return [
            {layer: self._to_25hz(frames, count) for layer, frames in clip.items()}
            for clip, count in zip(clips, counts, strict=True)
        ]

    def _to_25hz(self, frames: torch.Tensor, count: int) -> torch.Tensor:
        return frames[: count * self._pool].reshape(count, self._pool, -1).mean(dim=1)


def last_layer(folder: Path) -> int:
    """Number of transformer blocks of the HuBERT in `folder`."""
    return int(HubertConfig.from_pretrained(folder, local_files_only=True).num_hidden_layers)


def _read_config(folder: Path, layers: int) -> HubertConfig:
    try:
        kind = read_json(folder / "config.json").get("model_type")
    except ModelReferenceError as error:
        raise ModelReferenceError(f"{folder} is not a Hugging Face model folder: {error}") from error
    if kind != "hubert":
        raise ModelReferenceError(f"{folder} holds a model of type {kind}, not a HuBERT")
    config = HubertConfig.from_pretrained(folder, local_files_only=True)
    if layers > config.num_hidden_layers:
        raise ModelReferenceError(f"{folder} has {config.num_hidden_layers} layers, but layer {layers} is wanted")
    if not on_grid(config.conv_kernel, config.conv_stride):
        raise ModelReferenceError(f"the convolutions of {folder} do not fit one frame per 640 samples at 16 kHz")
    config.num_hidden_layers = layers
    return config


def _preprocessor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    if settings.get("sampling_rate", 16_000) != 16_000:
        raise ModelReferenceError(f"{folder} wants {settings['sampling_rate']} Hz, the lake holds 16000 Hz")
    return settings
