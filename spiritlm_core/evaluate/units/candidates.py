"""The tokenizers that are compared: MFCC, the encoder's k-means, the recipe's own, and any given ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.cores import pick_device
from spiritlm_core.evaluate.config import GIVEN, OWN, UnitEvaluationStageConfig
from spiritlm_core.speech.encoders.registry import family_name, layer_count, load_encoder
from spiritlm_core.speech.folder import UNIT_ROLES, TokenizerFolder
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.quantizers.kmeans import fit_kmeans
from spiritlm_core.speech.quantizers.quantizer import load_quantizer
from spiritlm_core.speech.settings import ExtractionPrecision
from spiritlm_core.speech.types import Units, chunks

if TYPE_CHECKING:
    from spiritlm_core.speech.encoders.encoder import BlockEncoder
    from spiritlm_core.speech.pitch.coder import PitchCoder

Frames = NDArray[np.float32]
Featurizer = Callable[[Sequence[Waveform]], list[Frames]]
Train = Callable[[], Sequence[Waveform]]


@dataclass(frozen=True)
class Candidate:
    """A tokenizer to judge."""

    name: str  # in the table
    about: str  # what it is made of
    sizes: Mapping[str, int]  # units of each of its streams
    # from waveforms float32[T] and their speakers to units
    encode: Callable[[Sequence[Waveform], Sequence[str | None]], list[Units]]
    features: Featurizer  # from waveforms to what the phonetic units were made from, float32[N, D] at 25 Hz
    hop: int = FRAME  # samples from one phonetic unit to the next
    pitch: PitchCoder | None = None  # its pitch model, if it has one


def candidates(
    models: Mapping[str, Path], config: UnitEvaluationStageConfig, train: Train
) -> Iterator[tuple[str, Callable[[], Candidate]]]:
    """Names of the tokenizers with functions that load or fit them; one after the other, so that few are in memory.

    Roles of `models`: hubert and quantizer, pitch and style for Expressive, and ``candidate.NAME`` for each given one.
    `train` gives the train speech for the k-means.
    """
    quantizer = load_quantizer(models["quantizer"])
    size, layer = quantizer.size, quantizer.layer
    yield "mfcc", partial(_mfcc, size, train, config.seed)
    for name, folder in _iterations(models["hubert"]):
        yield name, partial(_iteration, name, folder, layer, size, train, config.seed)
    yield OWN, partial(_tokenizer, OWN, {role: models[role] for role in UNIT_ROLES if role in models}, config.precision)
    for role in sorted(models):
        if role.startswith(GIVEN):
            name = role.removeprefix(GIVEN)
            yield name, partial(_given, name, models[role])


def _iterations(hubert: Path) -> Iterator[tuple[str, Path]]:
    """The earlier iterations that a fitted HuBERT keeps in ``iterations/N``, and the last one, or a given encoder."""
    earlier = sorted(
        (int(path.name), path) for path in hubert.glob("iterations/*") if path.is_dir() and path.name.isdigit()
    )
    for number, path in earlier:
        yield f"iteration {number}", path
    yield f"iteration {earlier[-1][0] + 1}" if earlier else f"{family_name(hubert)} k-means", hubert


def _mfcc(size: int, train: Train, seed: int) -> Candidate:
    """K-means on MFCC frames: the labels of HuBERT's first iteration, and what HuBERT has to beat."""
    import torch

    from spiritlm_core.speech.mel import mfcc_25hz

    def features(waveforms: Sequence[Waveform]) -> list[Frames]:
        return [_whole([mfcc_25hz(torch.from_numpy(piece)) for piece in chunks(w)]) for w in waveforms]

    return _clustered("mfcc", f"{size} k-means clusters of MFCC frames", features, size, train, seed)


def _iteration(name: str, folder: Path, layer: int, size: int, train: Train, seed: int) -> Candidate:
    """K-means on one layer of an encoder, alike for every iteration; its last layer if it has fewer than `layer`."""
    used = min(layer, layer_count(folder))
    encoder = load_encoder(folder, used, pick_device())
    return _clustered(name, f"{size} k-means clusters of layer {used}", _featurizer(encoder, used), size, train, seed)


def _clustered(name: str, about: str, features: Featurizer, size: int, train: Train, seed: int) -> Candidate:
    kmeans = fit_kmeans(np.concatenate(features(train())), size, seed=seed)

    def encode(waveforms: Sequence[Waveform], speakers: Sequence[str | None]) -> list[Units]:
        del speakers
        return [Units(kmeans.assign(frames).astype(np.int16)) for frames in features(waveforms)]

    return Candidate(name, about, {"hubert": size}, encode, features)


def _featurizer(encoder: BlockEncoder, layer: int) -> Featurizer:
    from spiritlm_core.speech.encoders.encoder import layer_frames

    def features(waveforms: Sequence[Waveform]) -> list[Frames]:
        pieces = [(i, piece) for i, waveform in enumerate(waveforms) for piece in chunks(waveform)]
        parts: list[list[Frames]] = [[] for _ in waveforms]
        for (i, _), frames in zip(pieces, layer_frames(encoder, [piece for _, piece in pieces], layer), strict=True):
            parts[i].append(frames)
        return [_whole(clip) for clip in parts]

    return features


def _whole(parts: list[Frames]) -> Frames:
    """Pieces end to end; a clip too short for a unit has no frame."""
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _given(name: str, folder: Path) -> Candidate:
    read = TokenizerFolder.read(folder)
    return _tokenizer(name, read.models(), read.precision)


def _tokenizer(name: str, models: Mapping[str, Path], precision: ExtractionPrecision) -> Candidate:
    from spiritlm_core.speech.extractor import UnitExtractor

    extractor = UnitExtractor(models, precision=precision)
    about = f"{', '.join(models)}; {family_name(models['hubert'])} layer {extractor.layer}"
    features = _featurizer(extractor.encoder, extractor.layer)
    hop = extractor.quantizer.hop
    return Candidate(name, about, extractor.sizes, extractor.encode, features, hop, extractor.pitch)
