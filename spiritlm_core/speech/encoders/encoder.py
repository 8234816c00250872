"""What all encoders of speech share: their folders, batches of like length, and the grid of the units."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging as transformers_logging

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.cores import large_products
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.references.content import check_weights
from spiritlm_core.speech.encoders.precision import Kind, Precision
from spiritlm_core.speech.grid import FRAME, RECEPTIVE_FIELD, unit_count

LayerFrames = dict[int, torch.Tensor]  # layer, counted from 1 → float32[N, D] of one clip

_CPU_BATCH, _GPU_BATCH = 1000, 10_000
_MOST_PADDING = 0.1


class BlockEncoder(ABC):
    """An encoder that makes frames of each clip alone, and then runs transformer blocks over batches of clips.

    A subclass sets the attributes and says how many frames a clip has, what they are, and what the blocks do with
    them. Clips of like length share a padded batch; layers above the highest one asked for are not run.
    """

    model_class: ClassVar[str]  # name of the class of `transformers`

    usual_layer: ClassVar[float] = 1.0  # which layer is taken where none is named, as a share of all

    hop = FRAME  # samples from one frame to the next, after pooling

    stride: int  # samples from one frame of the model itself to the next; `hop` is a multiple of it

    longest: int | None = None
    """Most units that the model takes; a longer clip is cut into windows of one length, each encoded alone."""

    width: int  # features of a frame

    device: torch.device
    kind: Kind

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, depth: int, device: str, precision: Precision) -> Self:
        """The encoder in `folder` without the layers above `depth`; see `registry.load_encoder`."""

    @classmethod
    def layers_in(cls, folder: Path) -> int:
        """Number of layers of the encoder in `folder`."""
        return int(configuration(cls.model_class, folder).num_hidden_layers)

    @property
    def batch_frames(self) -> int:
        """Most frames in a batch, padding included; with 0 each clip is alone."""
        return _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH

    @abstractmethod
    def frame_count(self, samples: int) -> int:
        """Frames of a clip in front of the blocks, before pooling."""

    @abstractmethod
    def frames(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """These frames, float32[N, D] of each clip float32[T]."""

    @abstractmethod
    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Output float32[B, N, D] of one block after the other, the first one first.

        The frames are float32[B, N, D], padding zero; the mask bool[B, N] is true at frames, None without padding.
        """

    def count(self, samples: int) -> int:
        """Frames of a clip, on the grid of the units."""
        return unit_count(samples, self.hop)

    @torch.inference_mode()
    def features(self, waveforms: Sequence[Waveform], layers: Sequence[int]) -> list[LayerFrames]:
        """Outputs of chosen layers for each waveform float32[T] of at least 1280 samples, in the order given.

        What a clip gives does not depend on the others, but for the rounding of floating-point numbers.
        """
        windows = [windows_of(waveform, self.longest) for waveform in waveforms]
        outputs = iter(self.outputs([window for clip in windows for window in clip], layers))
        return [self._joined([self._on_grid(len(window), next(outputs)) for window in clip]) for clip in windows]

    @large_products()
    @torch.inference_mode()
    def outputs(self, waveforms: Sequence[Waveform], layers: Sequence[int]) -> list[LayerFrames]:
        """The same before pooling, at the rate of the model itself; no clip is cut."""
        results: dict[int, LayerFrames] = {}
        for batch in batches([self.frame_count(len(waveform)) for waveform in waveforms], self.batch_frames):
            clips = [torch.from_numpy(waveforms[i]).to(self.device) for i in batch]
            results.update(zip(batch, self._batch(self.frames(clips), set(layers)), strict=True))
        return [results[i] for i in range(len(waveforms))]

    def _batch(self, clips: list[torch.Tensor], layers: set[int]) -> list[LayerFrames]:
        lengths = torch.tensor([len(clip) for clip in clips])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        padded = pad_sequence(clips, batch_first=True)
        kept: LayerFrames = {}
        for layer, output in enumerate(self.blocks(padded, None if mask.all() else mask.to(self.device)), 1):
            kept |= {layer: output.float()} if layer in layers else {}
            if layer == max(layers):
                break
        return [{layer: output[i, : len(clip)] for layer, output in kept.items()} for i, clip in enumerate(clips)]

    def _on_grid(self, samples: int, outputs: LayerFrames) -> LayerFrames:
        used = unit_count(samples) * FRAME // self.stride
        return {layer: pooled(frames[:used], FRAME // self.stride) for layer, frames in outputs.items()}

    def _joined(self, windows: list[LayerFrames]) -> LayerFrames:
        parts = {layer: torch.cat([window[layer] for window in windows]) for layer in windows[0]}
        return {layer: pooled(frames, self.hop // FRAME) for layer, frames in parts.items()}


def windows_of(waveform: Waveform, longest: int | None) -> list[Waveform]:
    """Windows of at most `longest` units each, as even as can be, that have as many units as the whole."""
    count = unit_count(len(waveform))
    if longest is None or count <= longest:
        return [waveform]
    size = -(-count // -(-count // longest))
    starts = range(0, count, size)
    return [waveform[start * FRAME : (start + size - 1) * FRAME + RECEPTIVE_FIELD] for start in starts]


def pooled(frames: torch.Tensor, times: int) -> torch.Tensor:
    """Means of `times` frames [N, D] each, float32[ceil(N / times), D]; the last one of those that are left."""
    if times == 1:
        return frames
    whole = len(frames) // times * times
    means = frames[:whole].reshape(-1, times, frames.shape[1]).mean(dim=1)
    rest = frames[whole:]
    return torch.cat([means, rest.mean(dim=0, keepdim=True)]) if len(rest) else means


def layer_frames(encoder: BlockEncoder, waveforms: Sequence[Waveform], layer: int) -> list[NDArray[np.float32]]:
    """Features of one layer of each waveform, float32[N, D], on the CPU."""
    return [clip[layer].cpu().numpy() for clip in encoder.features(waveforms, [layer])]


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


def configuration(model_class: str, folder: Path) -> Any:
    """The configuration of the `transformers` model of that name in `folder`.

    Raises ModelReferenceError: it cannot be read.
    """
    try:
        return getattr(transformers, model_class).config_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ModelReferenceError(f"{folder} is not a Hugging Face model folder: {error}") from error


def pretrained(model_class: str, folder: Path, config: Any, spare: Sequence[str] = (), **options: Any) -> Any:
    """The `transformers` model of that name in `folder`, in float32; weights beyond `config` are left unread.

    Raises ModelReferenceError: weights are damaged, do not fit `config`, or are missing and not among those to `spare`.
    """
    check_weights(folder)
    options |= {"config": config, "local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
    try:
        with quiet_loading():
            model, report = getattr(transformers, model_class).from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelReferenceError(f"{folder} holds no {model_class}: {error}") from error
    if missing := sorted(set(report["missing_keys"]) - set(spare)):
        raise ModelReferenceError(f"{folder} lacks weights of a {model_class}: {', '.join(missing[:5])}")
    return model


def preprocessor(folder: Path) -> dict[str, Any]:
    """What ``preprocessor_config.json`` says, if there is one.

    Raises ModelReferenceError: the model wants another sampling rate than 16 kHz.
    """
    path = folder / "preprocessor_config.json"
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    if settings.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ModelReferenceError(f"{folder} wants {settings['sampling_rate']} Hz, the lake holds {SAMPLE_RATE} Hz")
    return settings


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' report about weights: blocks left out on purpose, missing ones that are an error here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
