"""Fitting the style clusters."""

from typing import Any

import numpy as np

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.stage import Progress
from spiritlm_core.speech.config import StyleConfig
from spiritlm_core.speech.encoders.encoder import BlockEncoder, layer_frames
from spiritlm_core.speech.encoders.registry import chosen_layer, load_encoder
from spiritlm_core.speech.pitch.f0 import melody
from spiritlm_core.speech.quantizers.kmeans import Frames
from spiritlm_core.speech.style.coder import fit_style, second_vectors
from spiritlm_core.speech.types import chunks

_F0_SHARE = 0.9


def fit_style_units(config: StyleConfig, job: FitJob, progress: Progress) -> dict[str, Any]:
    """Describe each second of train speech and cluster; short enough to start over when killed."""
    clips = train_clips(job.tables["audio"], config.max_minutes, config.seed)
    pieces = [(piece, clip.speaker) for clip in clips for piece in chunks(clip.waveform)]
    names = [speaker for _, speaker in pieces]
    with all_cores():
        layer = chosen_layer(job.models["hubert"], config.layer, "units.style.layer")
        encoder = load_encoder(job.models["hubert"], layer, pick_device())
        vectors = _vectors(encoder, [piece for piece, _ in pieces], config.layer, progress)
        model = fit_style(vectors, names, config)
    model.save(job.out)
    units = np.concatenate([model.encode(v, speaker) for v, speaker in zip(vectors, names, strict=True)])
    return {
        "seconds": len(units),
        "speakers": len(model.speakers),
        "units_used": len(np.unique(units)),
        "perplexity": round(perplexity(units, config.clusters), 1),
    }


def _vectors(encoder: BlockEncoder, pieces: list[np.ndarray], layer: int, progress: Progress) -> list[Frames]:
    vectors = []
    for done, (piece, features) in enumerate(zip(pieces, layer_frames(encoder, pieces, layer), strict=True)):
        vectors.append(second_vectors(piece, features, melody(piece, pick_device())))
        if done % 50 == 0:
            progress(_F0_SHARE * done / len(pieces), f"utterance {done + 1}/{len(pieces)}")
    return vectors
