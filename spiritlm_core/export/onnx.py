"""The models of a speech tokenizer as ONNX files: waveforms to units, and units to waveforms and durations.

What torch computes by Fourier transforms is a matrix product here, as ONNX has no complex numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import filling, new_folder
from spiritlm_core.speech.encoders.encoder import configuration, pretrained
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.encoders.waveform import HubertEncoder, Wav2Vec2Encoder, WaveformEncoder
from spiritlm_core.speech.encoders.whisper import WhisperEncoder
from spiritlm_core.speech.folder import TokenizerFolder
from spiritlm_core.speech.grid import FRAME, SAMPLE_RATE
from spiritlm_core.speech.mel import HOP, WINDOW
from spiritlm_core.speech.quantizers.quantizer import LinearQuantizer, Quantizer, classifier, load_quantizer
from spiritlm_core.speech.vocoder.generators import IstftGenerator
from spiritlm_core.speech.vocoder.model import VocoderModel

_OPSET = 17
_AXES = {"waveform": {0: "samples"}, "features": {0: "units"}, "units": {0: "units"}}


def export_onnx(folder: Path, out: Path) -> list[str]:
    """Write the models of the speech tokenizer in `folder` (or in a published model) into the new folder `out`.

    ======================  ========================================  ==================================================
    ``units.onnx``          waveform float32[T], 16 kHz, in [-1, 1]   units int64[N] and features float32[N, D]
    ``vocoder.onnx``        units, pitch, style int64[1, F], as far   waveform float32[1, 640 F]; one entry of each for
                            as the vocoder knows them                 every 40 ms
    ``durations.onnx``      units int64[1, N], runs collapsed         frames int64[1, N]: how often each is repeated
    ======================  ========================================  ==================================================

    One recording at a time, of at least 1280 samples, and of at most 30 s where the encoder is Whisper's. Pitch and
    style units are not among them. Returns the names of the files.

    Raises ModelReferenceError: the encoder is of a family without an ONNX form, or a model is missing or damaged;
    SpiritLMError: there is no room for the files.
    """
    tokenizer = TokenizerFolder.read(folder)
    quantizer = load_quantizer(tokenizer.models("base")["quantizer"])
    units = _Units(tokenizer.path / "hubert", quantizer).eval()
    with filling(out), new_folder(out) as fresh:
        fresh.mkdir()
        _export(units, (torch.randn(SAMPLE_RATE) / 10,), fresh / "units.onnx", ["waveform"], ["units", "features"])
        if tokenizer.vocoder is not None:
            _export_vocoder(VocoderModel.load(tokenizer.vocoder), fresh)
        return sorted(path.name for path in fresh.iterdir())


def _export(model: nn.Module, inputs: Any, out: Path, names: list[str], results: list[str], axes: Any = None) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are checked by tests
        torch.onnx.export(
            model, inputs, str(out), input_names=names, output_names=results, dynamo=False, opset_version=_OPSET,
            dynamic_axes=axes or {name: _AXES[name] for name in (*names, *results)},
        )  # fmt: skip


class _Units(nn.Module):
    """Waveform float32[T] to units int64[N] and the features float32[N, D] that they are classes of."""

    def __init__(self, folder: Path, quantizer: Quantizer) -> None:
        super().__init__()
        encoder = load_encoder(folder, quantizer.layer, "cpu")
        if isinstance(encoder, WhisperEncoder):
            self.frames: nn.Module = _WhisperFrames(encoder)
        elif isinstance(encoder, HubertEncoder | Wav2Vec2Encoder):
            self.frames = _WaveformFrames(encoder, folder, quantizer.layer)
        else:
            raise ModelReferenceError(f"{folder}: a {type(encoder).__name__} has no ONNX form here")
        self._encoder, self._times = encoder, FRAME // encoder.stride
        self._pairs = quantizer.hop // FRAME == 2
        self._classes = classifier(quantizer, "cpu")
        self._blank = quantizer.blank if isinstance(quantizer, LinearQuantizer) else None

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden: Any = None
        for output in self._encoder.blocks(self.frames(waveform)[None], None):
            hidden = output[0]
        units = (waveform.shape[0] - 720) // FRAME + 1
        features = hidden[: units * self._times].unflatten(0, (-1, self._times)).mean(dim=1)
        if self._pairs:  # a last frame without a second one is one alone
            twice: Any = torch.cat([features, features[-1:]])[: (units + 1) // 2 * 2]
            features = twice.unflatten(0, (-1, 2)).mean(dim=1)
        classes = self._classes(features)
        return (classes if self._blank is None else _resolved(classes, self._blank)), features


def _resolved(classes: torch.Tensor, blank: int) -> torch.Tensor:
    """As `quantizer.resolve_blanks`: place of the latest class that is no blank, found by comparing all with all."""
    places = (classes * 0 + 1).cumsum(0) - 1  # a range would become a constant
    known = torch.where(classes == blank, places * 0 - 1, places)
    before = known[None] * (places[None] <= places[:, None]) - (places[None] > places[:, None]).long()
    latest = before.amax(dim=1)
    return classes[torch.where(latest < 0, known.amax().clamp(min=0), latest)]


class _WaveformFrames(nn.Module):
    """Projected frames of the convolutions of a HuBERT or wav2vec 2.0, as transformers computes them."""

    def __init__(self, encoder: WaveformEncoder, folder: Path, depth: int) -> None:
        super().__init__()
        config = configuration(encoder.model_class, folder)
        config.num_hidden_layers = depth
        model = pretrained(encoder.model_class, folder, config, spare=("masked_spec_embed",))
        self.convolutions, self.projection = model.feature_extractor, model.feature_projection
        self._encoder = encoder

    def forward(self, waveform: torch.Tensor) -> Any:
        found = self.convolutions(self._encoder._prepared(waveform)[None]).transpose(1, 2)  # noqa: SLF001
        projected = self.projection(found)
        return (projected[0] if isinstance(projected, tuple) else projected)[0]


class _WhisperFrames(nn.Module):
    """Convolved mel spectra, whose Fourier transform is a convolution with cosines and sines."""

    def __init__(self, encoder: WhisperEncoder) -> None:
        super().__init__()
        cosines, sines = _waves(WINDOW)
        self._waves = (torch.cat([cosines, sines]) * encoder._window)[:, None]  # noqa: SLF001
        self._encoder = encoder

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        parts = nn.functional.conv1d(waveform[None, None], self._waves, stride=HOP)[0]
        real, imaginary = parts.chunk(2)
        energies = (real**2 + imaginary**2).T @ self._encoder._filters  # noqa: SLF001
        return self._encoder._convolved(self._encoder.scaled(energies))  # noqa: SLF001


def _waves(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cos and -sin of 2 pi k n / size, float32[size / 2 + 1, size]: what a real Fourier transform multiplies with."""
    angles = 2 * math.pi / size * (torch.arange(size // 2 + 1)[:, None] * torch.arange(size) % size).double()
    return angles.cos().float(), -angles.sin().float()


def _export_vocoder(model: VocoderModel, out: Path) -> None:
    if isinstance(model.generator, IstftGenerator):
        model.generator.pieces = _Pieces(model.generator.config.window)  # type: ignore[method-assign]
    names = list(model.config.embeddings)
    streams = tuple(torch.randint(0, model.config.embeddings[name], (1, 40)) for name in names)
    axes = {name: {1: "frames"} for name in names} | {"waveform": {1: "samples"}}
    _export(_Speaks(model, names), streams, out / "vocoder.onnx", names, ["waveform"], axes)
    axes = {"units": {1: "units"}, "frames": {1: "units"}}
    _export(_Lasts(model), streams[:1], out / "durations.onnx", ["units"], ["frames"], axes)


class _Speaks(nn.Module):
    """A vocoder whose streams are arguments one after the other."""

    def __init__(self, model: VocoderModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self._names = model, names

    def forward(self, *streams: torch.Tensor) -> torch.Tensor:
        waveform: torch.Tensor = self.model(dict(zip(self._names, streams, strict=True)))
        return waveform


class _Lasts(nn.Module):
    """The duration predictor alone."""

    def __init__(self, model: VocoderModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        return self.model.frames(units)


class _Pieces:
    """The inverse real Fourier transform of magnitudes and phases float32[B, T, size / 2 + 1], as a product."""

    def __init__(self, size: int) -> None:
        cosines, sines = _waves(size)
        twice = torch.full((size // 2 + 1, 1), 2.0 / size)
        twice[0] = twice[-1] = 1.0 / size
        self._cosines, self._sines = cosines * twice, sines * twice

    def __call__(self, magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
        return magnitude * phase.cos() @ self._cosines + magnitude * phase.sin() @ self._sines
