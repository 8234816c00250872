"""Fitting the style clusters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.job import UnitFit
from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.config import StyleConfig
from spiritlm_core.speech.encoders.registry import chosen_layer, load_encoder
from spiritlm_core.speech.pitch.f0 import melody
from spiritlm_core.speech.quantizers.kmeans import Frames
from spiritlm_core.speech.types import chunks

if TYPE_CHECKING:
    from spiritlm_core.speech.encoders.encoder import BlockEncoder

_F0_SHARE = 0.9


class StyleFit(UnitFit):
    """K-means over one vector per second, on a low layer of the encoder in role ``hubert`` and on prosody."""

    name = "style"
    about = "k-means over one-second style features"
    version = 2
    config: StyleConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """Describe each second of train speech and cluster; short enough to start over when killed."""
        from spiritlm_core.speech.style.coder import fit_style

        config = self.config
        clips = train_clips(tables["audio"], config.max_minutes, config.seed)
        pieces = [(piece, clip.speaker) for clip in clips for piece in chunks(clip.waveform)]
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
        }


def _vectors(encoder: BlockEncoder, pieces: list[np.ndarray], layer: int, progress: Progress) -> list[Frames]:
    from spiritlm_core.speech.encoders.encoder import layer_frames
    from spiritlm_core.speech.style.coder import second_vectors

    vectors = []
    for done, (piece, features) in enumerate(zip(pieces, layer_frames(encoder, pieces, layer), strict=True)):
        vectors.append(second_vectors(piece, features, melody(piece, pick_device())))
        if done % 50 == 0:
            progress(_F0_SHARE * done / len(pieces), f"utterance {done + 1}/{len(pieces)}")
    return vectors
