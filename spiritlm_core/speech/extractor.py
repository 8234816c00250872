"""From waveforms to the three unit streams, in one pass over the audio."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.cores import pick_device
from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.encoders.encoder import pooled
from spiritlm_core.speech.encoders.precision import Precision
from spiritlm_core.speech.encoders.registry import load_encoder
from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.f0 import Melody, melody
from spiritlm_core.speech.quantizers.quantizer import classifier, load_quantizer
from spiritlm_core.speech.style.coder import PROSODY, StyleClassifier, StyleModel, load_style, second_vectors
from spiritlm_core.speech.types import Units, chunks


class UnitExtractor:
    """Encodes waveforms. Base models give phonetic units only, Expressive ones all three streams."""

    def __init__(
        self,
        models: Mapping[str, Path],
        sizes: Mapping[str, int] | None = None,
        *,
        device: str | None = None,
        precision: Precision = "exact",
    ) -> None:
        """Load the models of the roles ``hubert`` and ``quantizer``, for Expressive ``pitch`` and ``style`` too.

        They must have as many units as `sizes` says for their streams; the device is ``cuda`` if there is one, else
        ``cpu``.

        Raises ModelReferenceError: a model is missing, damaged, or not made for this encoder; RecipeError: a model is
        not of the size that `sizes` says.
        """
        if missing := {"hubert", "quantizer"} - set(models):
            raise ModelReferenceError(f"speech units need the models {sorted(missing)}")
        self.device = device or pick_device()
        self.precision = precision
        self.quantizer = load_quantizer(models["quantizer"])
        self.layer = self.quantizer.layer
        self._classes = classifier(self.quantizer, self.device)
        self.pitch = PitchCoder.load(models["pitch"], self.device) if "pitch" in models else None
        self.style = load_style(models["style"], self.device, self.precision) if "style" in models else None
        self._layers = {self.layer} | ({self.style.layer} if isinstance(self.style, StyleModel) else set())
        self.encoder = load_encoder(models["hubert"], max(self._layers), self.device, self.precision)
        self._check_widths()
        self._check_sizes(sizes or {})

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of each stream."""
        sizes = {"hubert": self.quantizer.size}
        sizes |= {"pitch": self.pitch.config.codes} if self.pitch is not None else {}
        return sizes | ({"style": self.style.size} if self.style is not None else {})

    @property
    def rate(self) -> float:
        """Phonetic units a second."""
        return SAMPLE_RATE / self.quantizer.hop

    def encode(self, batch: Sequence[Waveform], speakers: Sequence[str | None] | None = None) -> list[Units]:
        """Units of each waveform, float32[T], 16 kHz mono in [-1, 1].

        The result for a waveform does not depend on the others in the batch. Long waveforms are encoded in pieces of
        100 s; one below 1280 samples has empty streams. Where speakers are known, style is relative to their own
        average.
        """
        names = speakers if speakers is not None else [None] * len(batch)
        owners = [index for index, waveform in enumerate(batch) for _ in chunks(waveform)]
        pieces = [piece for waveform in batch for piece in chunks(waveform)]
        parts: list[list[Units]] = [[] for _ in batch]
        for owner, units in zip(owners, self._pieces(pieces, [names[owner] for owner in owners]), strict=True):
            parts[owner].append(units)
        return [self._join(units) for units in parts]

    def _pieces(self, pieces: list[Waveform], speakers: list[str | None]) -> Iterator[Units]:
        """Units of pieces of at most 100 s; every normalisation, and what a blank becomes, is within the piece."""
        if not pieces:
            return
        features = self.encoder.features(pieces, sorted(self._layers))
        hubert = self._quantize([clip[self.layer] for clip in features])
        tracks: list[Melody | None] = [None] * len(pieces)
        if self.pitch is not None or isinstance(self.style, StyleModel):
            tracks = [melody(piece, self.device) for piece in pieces]
        pitch = [self._pitch(piece, track) for piece, track in zip(pieces, tracks, strict=True)]
        style = self._style(pieces, features, tracks, speakers)
        yield from map(Units, hubert, pitch, style)

    def _quantize(self, frames: list[torch.Tensor]) -> list[NDArray[np.int16]]:
        """Phonetic units: classes of all pieces at once, blanks piece by piece."""
        frames = [pooled(piece, self.quantizer.hop // self.encoder.hop) for piece in frames]
        classes = self._classes(torch.cat(frames)).cpu().numpy()
        ends = np.cumsum([len(piece) for piece in frames])[:-1]
        return [self.quantizer.resolve(piece).astype(np.int16) for piece in np.split(classes, ends)]

    def _pitch(self, piece: Waveform, track: Melody | None) -> NDArray[np.int8] | None:
        if self.pitch is None or track is None:
            return None
        return self.pitch.encode(self.pitch.contour(track, len(piece)))

    def _style(
        self,
        pieces: list[Waveform],
        features: list[dict[int, torch.Tensor]],
        tracks: list[Melody | None],
        speakers: list[str | None],
    ) -> list[NDArray[np.int8]] | list[None]:
        if self.style is None:
            return [None] * len(pieces)
        if isinstance(self.style, StyleClassifier):
            return self.style.encode(pieces)
        layers = [clip[self.style.layer].cpu().numpy() for clip in features]
        vectors = [second_vectors(p, frames, t) for p, frames, t in zip(pieces, layers, tracks, strict=True) if t]
        return [self.style.encode(vector, name) for vector, name in zip(vectors, speakers, strict=True)]

    def _join(self, parts: list[Units]) -> Units:
        def joined(streams: list[NDArray[np.int8] | None]) -> NDArray[np.int8]:
            return np.concatenate([np.zeros(0, np.int8), *(stream for stream in streams if stream is not None)])

        hubert = np.concatenate([np.zeros(0, np.int16), *(part.hubert for part in parts)])
        pitch = joined([part.pitch for part in parts]) if self.pitch is not None else None
        style = joined([part.style for part in parts]) if self.style is not None else None
        return Units(hubert, pitch, style)

    def _check_widths(self) -> None:
        have = self.encoder.width
        wants = {"quantizer": self.quantizer.width}
        if isinstance(self.style, StyleModel):
            wants["style model"] = (self.style.means.shape[1] - len(PROSODY)) // 2
        for name, want in wants.items():
            if have != want:
                raise ModelReferenceError(f"the {name} wants {want} features a frame, but this encoder gives {have}")

    def _check_sizes(self, wanted: Mapping[str, int]) -> None:
        for name, have in self.sizes.items():
            if have != wanted.get(name, have):
                raise RecipeError(
                    f"{wanted[name]} {name} units are wanted, but the model at hand has {have}: refit it or change "
                    "the recipe"
                )
