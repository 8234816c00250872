"""From waveforms to the three unit streams, in one pass over the audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.units.config import UnitsConfig
from spiritlm_core.units.f0 import melody
from spiritlm_core.units.fit_quantizer import QUANTIZER_FILE
from spiritlm_core.units.hubert import Features, HubertFeatures
from spiritlm_core.units.kmeans import KMeans
from spiritlm_core.units.pitch import PitchCoder, contour
from spiritlm_core.units.style import PROSODY, StyleModel, second_vectors
from spiritlm_core.units.training import pick_device
from spiritlm_core.units.types import Units, chunks

Waveform = NDArray[np.float32]


class UnitExtractor:
    """Encodes waveforms. Base models give HuBERT units only, Expressive ones all three streams."""

    def __init__(
        self, models: Mapping[str, Path], config: UnitsConfig | None = None, *, device: str | None = None
    ) -> None:
        """Load the models.

        Args:
            models: Role → local folder: ``hubert`` and ``quantizer``, for Expressive ``pitch`` and ``style`` too.
            config: If given, the models must be of the sizes it says.
            device: Where to compute; ``cuda`` if there is one, else ``cpu``.

        Raises:
            ModelReferenceError: A model is missing, damaged, or not made for this HuBERT.
            RecipeError: A pinned model is not of the size that `config` says.
        """
        if missing := {"hubert", "quantizer"} - set(models):
            raise ModelReferenceError(f"speech units need the models {sorted(missing)}")
        self.device = device or pick_device()
        self.quantizer = KMeans.load(models["quantizer"] / QUANTIZER_FILE)
        self.layer = int(self.quantizer.facts["layer"])
        self.pitch = PitchCoder.load(models["pitch"], self.device) if "pitch" in models else None
        self.style = StyleModel.load(models["style"]) if "style" in models else None
        layers = [self.layer] + ([self.style.layer] if self.style else [])
        self.hubert = HubertFeatures.load(models["hubert"], layers, self.device)
        self._check_widths()
        if config is not None:
            self._check_sizes(config)

    def encode(self, batch: Sequence[Waveform], speakers: Sequence[str | None] | None = None) -> list[Units]:
        """Units of each waveform.

        The result for a waveform does not depend on the others in the batch. Long waveforms are encoded in
        pieces of 100 s; one below 1280 samples has empty streams.

        Args:
            batch: float32[T] each, 16 kHz mono in [-1, 1].
            speakers: Who speaks, where known; style is relative to the speaker's own average.
        """
        names = speakers if speakers is not None else [None] * len(batch)
        pieces = [(index, piece) for index, waveform in enumerate(batch) for piece in chunks(waveform)]
        features = self.hubert([piece for _, piece in pieces])
        parts: list[list[Units]] = [[] for _ in batch]
        for (index, piece), frames in zip(pieces, features, strict=True):
            parts[index].append(self._piece(piece, frames, names[index]))
        return [self._join(units) for units in parts]

    def _piece(self, piece: Waveform, features: Features, speaker: str | None) -> Units:
        hubert = self.quantizer.assign(features[self.layer]).astype(np.int16)
        if self.pitch is None and self.style is None:
            return Units(hubert)
        track = melody(piece, self.device)
        pitch = style = None
        if self.pitch is not None:
            pitch = self.pitch.encode(contour(track, len(piece), normalize=self.pitch.config.normalize))
        if self.style is not None:
            style = self.style.encode(second_vectors(piece, features[self.style.layer], track), speaker)
        return Units(hubert, pitch, style)

    def _join(self, parts: list[Units]) -> Units:
        def joined(streams: list[NDArray[np.int8] | None]) -> NDArray[np.int8]:
            return np.concatenate([np.zeros(0, np.int8), *(stream for stream in streams if stream is not None)])

        hubert = np.concatenate([np.zeros(0, np.int16), *(part.hubert for part in parts)])
        pitch = joined([part.pitch for part in parts]) if self.pitch is not None else None
        style = joined([part.style for part in parts]) if self.style is not None else None
        return Units(hubert, pitch, style)

    def _check_widths(self) -> None:
        have = self.hubert.model.config.hidden_size
        wants = {"quantizer": self.quantizer.centres.shape[1]}
        if self.style is not None:
            wants["style model"] = (self.style.means.shape[1] - len(PROSODY)) // 2
        for name, want in wants.items():
            if have != want:
                raise ModelReferenceError(f"the {name} wants {want} features a frame, but this HuBERT gives {have}")

    def _check_sizes(self, config: UnitsConfig) -> None:
        found = {"quantizer.units": (len(self.quantizer.centres), config.quantizer.units)}
        if self.pitch is not None:
            found["pitch.codes"] = (self.pitch.config.codes, config.pitch.codes)
        if self.style is not None:
            found["style.clusters"] = (len(self.style.kmeans.centres), config.style.clusters)
        for name, (have, want) in found.items():
            if have != want:
                raise RecipeError(
                    f"units.{name} is {want}, but the model at hand has {have}: refit it or change the recipe"
                )
