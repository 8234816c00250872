"""Fitting the quantizer of an encoder's features."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.stage import Progress, within
from spiritlm_core.speech.encoders.encoder import layer_frames
from spiritlm_core.speech.encoders.registry import chosen_layer, load_encoder
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from spiritlm_core.speech.quantizers.discriminant import discriminant, word_parts
from spiritlm_core.speech.quantizers.fit_linear import Speech, fit_linear
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, Frames, KMeans, Projecting, fit_kmeans
from spiritlm_core.speech.quantizers.quantizer import LINEAR_FILE
from spiritlm_core.speech.types import chunks

_SHARE_OF_KMEANS = 0.6  # of the time is gone when clustering begins
_SHARE_BEFORE_LINEAR = 0.3  # of the time is gone when teaching begins


def fit_quantizer(config: QuantizerStageConfig, job: FitJob, progress: Progress) -> dict[str, Any]:
    """Extract features of train speech and cluster them: short enough to start over when killed. Then teach."""
    layer = chosen_layer(job.models["hubert"], config.layer, "units.quantizer.layer")
    clips = train_clips(
        job.tables["audio"], config.max_minutes, config.seed, synthetic=True, people_first=config.people_first
    )
    pieces = [piece for clip in clips for piece in chunks(clip.waveform)]
    with all_cores():
        encoder = load_encoder(job.models["hubert"], layer, pick_device(), hop=config.hop)
        encode = partial(layer_frames, encoder, layer=layer)
        features = encode(pieces)
        project = None
        if config.directions:
            parts = word_parts(clips, job.tables["words"], config.hop)
            project = partial(discriminant, parts=parts, directions=config.directions)
        kmeans, summary = _cluster(config, layer, features, project, progress)
        if config.kind == "kmeans":
            kmeans.save(job.out / QUANTIZER_FILE)
            return summary
        report = within(progress, _SHARE_BEFORE_LINEAR, 1)
        linear, learned = fit_linear(kmeans, Speech(pieces, features, encode), config, job.work, report)
    linear.save(job.out / LINEAR_FILE)
    units = [linear.assign(frames) for frames in features]
    return {**summary, **_use(units, config.size), "kind": "linear", **learned}


def _cluster(
    config: QuantizerStageConfig,
    layer: int,
    features: Sequence[Frames],
    project: Projecting | None,
    progress: Progress,
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
        project=project,
        facts={"layer": layer, "rate": config.rate},
    )
    return kmeans, {
        "layer": layer,
        "frames": len(frames),
        **_use([kmeans.assign(clip) for clip in features], config.units),
        "distortion": round(kmeans.distortion(frames), 4),
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
