"""Fitting the quantizer of HuBERT features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spiritlm_core.cores import all_cores
from spiritlm_core.lake.stage import ArtifactStage, Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.units.config import QuantizerConfig
from spiritlm_core.units.training import FIT_INPUT, perplexity, pick_device, train_clips
from spiritlm_core.units.types import chunks

QUANTIZER_FILE = "kmeans.safetensors"


class QuantizerFit(ArtifactStage):
    """K-means over frames of one layer of the HuBERT in role ``hubert``; the artifact is ``kmeans.safetensors``."""

    name = "quantizer"
    version = 1
    inputs = (FIT_INPUT,)
    config: QuantizerConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """Extract features of train speech and cluster them; short enough to start over when killed."""
        from spiritlm_core.units.hubert import last_layer
        from spiritlm_core.units.kmeans import fit_kmeans

        config = self.config
        layer = config.layer or last_layer(self.models["hubert"])
        clips = train_clips(tables["audio"], config.max_minutes, config.seed)
        with all_cores():
            features = _features(self.models["hubert"], layer, [p for clip in clips for p in chunks(clip.waveform)])
            frames = np.concatenate(features)
            progress(0.6, f"clustering {len(frames)} frames")
            kmeans = fit_kmeans(
                frames,
                config.units,
                seed=config.seed,
                restarts=config.restarts,
                iterations=config.iterations,
                normalize=config.normalize,
                facts={"layer": layer},
            )
        kmeans.save(out / QUANTIZER_FILE)
        units = [kmeans.assign(clip) for clip in features]
        every = np.concatenate(units)
        repeats = np.concatenate([clip[1:] == clip[:-1] for clip in units])
        return {
            "layer": layer,
            "frames": len(frames),
            "units_used": len(np.unique(every)),
            "perplexity": round(perplexity(every, config.units), 1),
            "distortion": round(kmeans.distortion(frames) / float(frames.var(axis=0).sum()), 4),
            "repeats": round(float(repeats.mean()), 4),
        }


def _features(folder: Path, layer: int, pieces: list[np.ndarray]) -> list[np.ndarray]:
    from spiritlm_core.units.hubert import HubertFeatures

    hubert = HubertFeatures.load(folder, [layer], pick_device())
    return [features[layer] for features in hubert(pieces)]
