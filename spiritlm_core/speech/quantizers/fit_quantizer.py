"""The stage that fits the quantizer of an encoder's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.job import UnitFit
from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, Frames, KMeans, fit_kmeans
from spiritlm_core.speech.quantizers.quantizer import LINEAR_FILE
from spiritlm_core.speech.types import chunks

_SHARE_OF_KMEANS = 0.6  # of the time is gone when clustering begins
_SHARE_BEFORE_LINEAR = 0.3  # of the time is gone when teaching begins


class QuantizerFit(UnitFit):
    """K-means over frames of one layer of the encoder in role ``hubert``, and perhaps the network that it teaches.

    The artifact is ``kmeans.safetensors``, or ``linear.safetensors`` where the configuration's kind is ``linear``.
    """

    name = "quantizer"
    about = "k-means over features of the encoder"
    version = 1
    config: QuantizerStageConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Extract features of train speech and cluster them: short enough to start over when killed. Then teach."""
        from spiritlm_core.speech.encoders.encoder import layer_frames
        from spiritlm_core.speech.encoders.registry import chosen_layer, load_encoder

        config = self.config
        layer = chosen_layer(self.models["hubert"], config.layer, "units.quantizer.layer")
        clips = train_clips(tables["audio"], config.max_minutes, config.seed, synthetic=True)
        pieces = [piece for clip in clips for piece in chunks(clip.waveform)]
        with all_cores():
            encode = partial(
                layer_frames, load_encoder(self.models["hubert"], layer, pick_device(), hop=config.hop), layer=layer
            )
            features = encode(pieces)
            kmeans, summary = _cluster(config, layer, features, progress)
            if config.kind == "kmeans":
                kmeans.save(out / QUANTIZER_FILE)
                return summary

            from spiritlm_core.speech.quantizers.fit_linear import Speech, fit_linear

            def report(fraction: float, message: str) -> None:
                progress(_SHARE_BEFORE_LINEAR + (1 - _SHARE_BEFORE_LINEAR) * fraction, message)

            linear, learned = fit_linear(kmeans, Speech(pieces, features, encode), config, work, report)
        linear.save(out / LINEAR_FILE)
        units = [linear.assign(frames) for frames in features]
        return {**summary, **_use(units, config.size), "kind": "linear", **learned}


def _cluster(
    config: QuantizerStageConfig, layer: int, features: Sequence[Frames], progress: Progress
) -> tuple[KMeans, dict[str, Any]]:
    """The k-means of frames float32[N, D] of each piece, and its summary."""
    frames = np.concatenate(features)
    share = _SHARE_OF_KMEANS if config.kind == "kmeans" else _SHARE_BEFORE_LINEAR / 2
    progress(share, f"clustering {len(frames)} frames")
    kmeans = fit_kmeans(
        frames,
        config.units,
        seed=config.seed,
        restarts=config.restarts,
        iterations=config.iterations,
        normalize=config.normalize,
        facts={"layer": layer, "rate": config.rate},
    )
    return kmeans, {
        "layer": layer,
        "frames": len(frames),
        **_use([kmeans.assign(clip) for clip in features], config.units),
        "distortion": round(kmeans.distortion(frames) / float(frames.var(axis=0).sum()), 4),
    }


def _use(units: Sequence[NDArray[np.int64]], size: int) -> dict[str, Any]:
    """How many units are in use, how evenly, and the share of frames that repeat the one before."""
    every = np.concatenate(units)
    repeats = np.concatenate([clip[1:] == clip[:-1] for clip in units])
    return {
        "units_used": len(np.unique(every)),
        "perplexity": round(perplexity(every, size), 1),
        "repeats": round(float(repeats.mean()), 4),
    }
