"""Fitting the style clusters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.cores import all_cores
from spiritlm_core.lake.stage import ArtifactStage, Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.units.config import StyleConfig
from spiritlm_core.units.training import FIT_INPUT, perplexity, pick_device, train_clips
from spiritlm_core.units.types import chunks

if TYPE_CHECKING:
    from spiritlm_core.units.hubert import HubertFeatures
    from spiritlm_core.units.kmeans import Frames

_F0_SHARE = 0.9


class StyleFit(ArtifactStage):
    """K-means over one vector per second, on a low layer of the HuBERT in role ``hubert`` and on prosody."""

    name = "style"
    version = 1
    inputs = (FIT_INPUT,)
    config: StyleConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """Describe each second of train speech and cluster; short enough to start over when killed."""
        from spiritlm_core.units.hubert import HubertFeatures
        from spiritlm_core.units.style import fit_style

        config = self.config
        clips = train_clips(tables["audio"], config.max_minutes, config.seed)
        pieces = [(piece, clip.speaker) for clip in clips for piece in chunks(clip.waveform)]
        with all_cores():
            hubert = HubertFeatures.load(self.models["hubert"], [config.layer], pick_device())
            vectors = _vectors(hubert, [piece for piece, _ in pieces], config.layer, progress)
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
        units = np.concatenate([model.encode(v, speaker) for v, (_, speaker) in zip(vectors, pieces, strict=True)])
        return {
            "seconds": len(units),
            "speakers": len(model.speakers),
            "units_used": len(np.unique(units)),
            "perplexity": round(perplexity(units, config.clusters), 1),
        }


def _vectors(hubert: HubertFeatures, pieces: list[np.ndarray], layer: int, progress: Progress) -> list[Frames]:
    from spiritlm_core.units.f0 import melody
    from spiritlm_core.units.style import second_vectors

    vectors = []
    for done, (piece, features) in enumerate(zip(pieces, hubert(pieces), strict=True)):
        vectors.append(second_vectors(piece, features[layer], melody(piece, pick_device())))
        if done % 50 == 0:
            progress(_F0_SHARE * done / len(pieces), f"utterance {done + 1}/{len(pieces)}")
    return vectors
