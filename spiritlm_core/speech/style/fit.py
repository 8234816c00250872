"""Fitting the style clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.job import UnitFit
from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.style.config import StyleConfig
from spiritlm_core.speech.types import chunks

if TYPE_CHECKING:
    from spiritlm_core.speech.encoders.encoder import Encoder
    from spiritlm_core.speech.quantizers.kmeans import Frames
    from spiritlm_core.speech.style.coder import StyleModel

_F0_SHARE = 0.9
_FOLDS = 3


class StyleFit(UnitFit):
    """K-means over one vector per second, on a low layer of the encoder in role ``hubert`` and on prosody."""

    name = "style"
    about = "k-means over one-second style features"
    version = 2
    config: StyleConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """Describe each second of train speech and cluster; short enough to start over when killed."""
        from spiritlm_core.speech.encoders.registry import chosen_layer, load_encoder
        from spiritlm_core.speech.style.coder import fit_style

        config = self.config
        clips = train_clips(tables["audio"], config.max_minutes, config.seed)
        pieces = [(piece, clip.speaker) for clip in clips for piece in chunks(clip.waveform)]
        clip_of_piece = [clip.utterance_id for clip in clips for _ in chunks(clip.waveform)]
        with all_cores():
            layer = chosen_layer(self.models["hubert"], config.layer, "units.style.layer")
            encoder = load_encoder(self.models["hubert"], layer, pick_device())
            vectors = _vectors(encoder, [piece for piece, _ in pieces], config.layer, progress)
            model = fit_style(
                vectors,
                [speaker for _, speaker in pieces],
                layer=config.layer,
                clusters=config.clusters,
                components=config.components,
                restarts=config.restarts,
                seed=config.seed,
            )
        model.save(out)
        names = [speaker for _, speaker in pieces]
        units = np.concatenate([model.encode(v, speaker) for v, speaker in zip(vectors, names, strict=True)])
        return {
            "seconds": len(units),
            "speakers": len(model.speakers),
            "units_used": len(np.unique(units)),
            "perplexity": round(perplexity(units, config.clusters), 1),
            "speaker_probe": _leakage(model, vectors, names, clip_of_piece, config.seed),
        }


def _leakage(
    model: StyleModel, vectors: Sequence[Frames], speakers: Sequence[str | None], clips: Sequence[str], seed: int
) -> dict[str, Any]:
    """How often a linear probe names the speaker of a piece: before and after the speaker's mean is removed.

    `vectors` is the mean over a piece, `units` the histogram of its style units; ``as_unknown`` treats everybody as if
    the model did not know them, as it will be with new speakers.
    """
    from spiritlm_core.metrics.probe import histograms, speaker_probe

    kinds = {
        "vectors_before": [model.flat(v - model.means[0]) for v in vectors],
        "vectors_after": [model.project(v, s) for v, s in zip(vectors, speakers, strict=True)],
    }
    features = {name: np.stack([v.mean(axis=0) for v in pieces]) for name, pieces in kinds.items()}
    encoded: dict[str, list[NDArray[Any]]] = {
        "units_before": [model.kmeans.assign(v) for v in kinds["vectors_before"]],
        "units_after": [model.encode(v, s) for v, s in zip(vectors, speakers, strict=True)],
        "units_as_unknown": [model.encode(v) for v in vectors],
    }
    features |= {name: histograms(units, model.size) for name, units in encoded.items()}
    probes = {name: speaker_probe(f, speakers, clips, folds=_FOLDS, seed=seed) for name, f in features.items()}
    first = next(iter(probes.values()))
    if "accuracy" not in first:
        return first
    return {**{name: probe["accuracy"] for name, probe in probes.items()}, "chance": first["chance"]}


def _vectors(encoder: Encoder, pieces: list[np.ndarray], layer: int, progress: Progress) -> list[Frames]:
    from spiritlm_core.speech.encoders.encoder import layer_frames
    from spiritlm_core.speech.pitch.f0 import melody
    from spiritlm_core.speech.style.coder import second_vectors

    vectors = []
    for done, (piece, features) in enumerate(zip(pieces, layer_frames(encoder, pieces, layer), strict=True)):
        vectors.append(second_vectors(piece, features, melody(piece, pick_device())))
        if done % 50 == 0:
            progress(_F0_SHARE * done / len(pieces), f"utterance {done + 1}/{len(pieces)}")
    return vectors
