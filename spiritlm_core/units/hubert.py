"""HuBERT features: any `transformers.HubertModel` folder, brought to 25 Hz."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import HubertConfig, HubertModel
from transformers.utils import logging as transformers_logging

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.units.config import FRAME, on_grid
from spiritlm_core.units.types import hubert_count

Waveform = NDArray[np.float32]
Features = dict[int, NDArray[np.float32]]
"""Layer (counted from 1) → float32[N, D]."""

_GPU_BATCH = 10_000


class HubertFeatures:
    """Features of chosen layers of a HuBERT at one frame per 640 samples.

    A layer's features are the output of that transformer block, counted from 1; blocks above the highest layer
    asked for are not even loaded. A model with a finer step (50 Hz in most published ones) has consecutive frames
    averaged, which gives as many frames as the 25 Hz convolutions do.
    """

    def __init__(self, model: HubertModel, layers: Sequence[int], *, normalize: bool = False) -> None:
        """`normalize`: bring each waveform to zero mean and unit variance first, as the model's preprocessor says."""
        self.model = model
        self.model.train(False)
        self.layers = tuple(sorted(set(layers)))
        self._normalize = normalize
        self._pool = FRAME // prod(model.config.conv_stride)
        self.batch_frames = 0 if model.device.type == "cpu" else _GPU_BATCH
        self._per_clip_norm = model.config.feat_extract_norm == "group"

    @classmethod
    def load(cls, folder: Path, layers: Sequence[int], device: str = "cpu") -> HubertFeatures:
        """Load a Hugging Face HuBERT folder.

        Raises:
            ModelReferenceError: Not a HuBERT, not at 16 kHz, no 25 Hz grid, too few layers, or weights missing.
        """
        config = _read_config(folder, max(layers))
        with _quiet():
            model, found = HubertModel.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True
            )
        if missing := sorted(set(found["missing_keys"]) - {"masked_spec_embed"}):
            raise ModelReferenceError(f"{folder} lacks weights of a HuBERT: {', '.join(missing[:5])}")
        return cls(model.to(device), layers, normalize=_preprocessor(folder).get("do_normalize", False))

    def __call__(self, waveforms: Sequence[Waveform]) -> list[Features]:
        """Features of each waveform of at least 1280 samples, in the order given.

        A padded batch holds at most `batch_frames` frames; 0, the default on a CPU, is one clip at a time,
        and then results are the same to the last bit whatever the neighbours. In a padded batch padding is masked, so
        that neighbours reach no further than the rounding of floating-point numbers.
        """
        results: dict[int, Features] = {}
        for batch in _batches([len(waveform) for waveform in waveforms], self.batch_frames):
            results.update(zip(batch, self._batch([waveforms[i] for i in batch]), strict=True))
        return [results[i] for i in range(len(waveforms))]

    @torch.inference_mode()
    def _batch(self, waveforms: list[Waveform]) -> list[Features]:
        front = self._front_end([self._prepare(waveform) for waveform in waveforms])
        lengths = [len(frames) for frames in front]
        padded = torch.nn.utils.rnn.pad_sequence(front, batch_first=True)
        mask = torch.arange(max(lengths), device=padded.device) < torch.tensor(lengths, device=padded.device)[:, None]
        with self._record() as outputs:
            self.model.encoder(padded, attention_mask=None if bool(mask.all()) else mask)
        return [
            {layer: self._to_25hz(frames[i, :length], len(waveform)) for layer, frames in outputs.items()}
            for i, (length, waveform) in enumerate(zip(lengths, waveforms, strict=True))
        ]

    def _prepare(self, waveform: Waveform) -> torch.Tensor:
        tensor = torch.from_numpy(waveform).to(self.model.device)
        if self._normalize:
            tensor = (tensor - tensor.mean()) / torch.sqrt(tensor.var(correction=0) + 1e-7)
        return tensor

    def _front_end(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """Frames float32[N, D] of each waveform; a group norm over time must not see padding: one at a time."""
        if self._per_clip_norm or len(waveforms) == 1:
            return [self._project(waveform[None])[0] for waveform in waveforms]
        frames = self._project(torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True))
        return [frames[i, : self._count(len(waveform))] for i, waveform in enumerate(waveforms)]

    def _count(self, samples: int) -> int:
        """Frames that the convolutions give."""
        config = self.model.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def _project(self, waveforms: torch.Tensor) -> torch.Tensor:
        frames: torch.Tensor = self.model.feature_projection(self.model.feature_extractor(waveforms).transpose(1, 2))
        return frames

    @contextmanager
    def _record(self) -> Iterator[dict[int, torch.Tensor]]:
        """Collect block outputs by hooks: `hidden_states` has a final norm on the last one of a pre-norm model."""
        outputs: dict[int, torch.Tensor] = {}

        def keep(layer: int, output: Any) -> None:
            outputs[layer] = output[0] if isinstance(output, tuple) else output

        blocks = self.model.encoder.layers
        hooks = [
            blocks[layer - 1].register_forward_hook(lambda _module, _input, output, layer=layer: keep(layer, output))
            for layer in self.layers
        ]
        try:
            yield outputs
        finally:
            for hook in hooks:
                hook.remove()

    def _to_25hz(self, frames: torch.Tensor, samples: int) -> NDArray[np.float32]:
        count = hubert_count(samples)
        pooled = frames[: count * self._pool].reshape(count, self._pool, -1).mean(dim=1)
        return pooled.float().cpu().numpy()


def last_layer(folder: Path) -> int:
    """Number of transformer blocks of the HuBERT in `folder`."""
    return int(HubertConfig.from_pretrained(folder, local_files_only=True).num_hidden_layers)


def _read_config(folder: Path, layers: int) -> HubertConfig:
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
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
    settings: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if settings.get("sampling_rate", 16_000) != 16_000:
        raise ModelReferenceError(f"{folder} wants {settings['sampling_rate']} Hz, the lake holds 16000 Hz")
    return settings


def _batches(lengths: Sequence[int], batch_frames: int) -> Iterator[list[int]]:
    """Indices in groups of similar length whose padded size stays below `batch_frames` 25 Hz frames."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > batch_frames * FRAME:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the report about the blocks left out on purpose."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
