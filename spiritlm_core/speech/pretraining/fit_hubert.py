"""Fitting a HuBERT on the corpus itself, where no published one can be had or is wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.checkpoints import Checkpoint
from spiritlm_core.fit.clips import perplexity, train_clips
from spiritlm_core.fit.job import FitJob
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lake.stage import Progress, noting, within
from spiritlm_core.speech.encoders.encoder import BlockEncoder, layer_frames
from spiritlm_core.speech.encoders.registry import chosen_layer, load_encoder
from spiritlm_core.speech.encoders.waveform import HubertEncoder
from spiritlm_core.speech.grid import SHORTEST, unit_count
from spiritlm_core.speech.mel import mfcc_25hz
from spiritlm_core.speech.pretraining.config import HubertConfig
from spiritlm_core.speech.pretraining.masked_prediction import MaskedPrediction, Tape
from spiritlm_core.speech.pretraining.pretrain import Pretraining
from spiritlm_core.speech.quantizers.kmeans import Frames, KMeans, fit_kmeans

ITERATIONS = "iterations"
"""Folder of the artifact that holds the model of every iteration but the last, each in a folder of its number."""

_FRAMES_CLUSTERED = 100_000
_CLIPS_AT_ONCE = 64
_PREPROCESSOR = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "do_normalize": False,
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": 16_000,
}
Labels = list[NDArray[np.int64]]
Waveforms = list[NDArray[np.float32]]


def fit_hubert(config: HubertConfig, job: FitJob, progress: Progress) -> dict[str, Any]:
    """Run the iterations and write the model to `out`; returns a summary of each.

    Raises RecipeError: there is a model already.
    """
    if config.model is not None:
        raise RecipeError(f"hubert.model is {config.model}: there is nothing to fit")
    clips = train_clips(job.tables["audio"], config.max_minutes, config.seed, synthetic=True)
    waveforms = [clip.waveform for clip in clips if len(clip.waveform) >= SHORTEST]
    with all_cores():
        ranks = Ranks.current(precision=config.precision)
        return _Fit(config, waveforms, job.work, progress, ranks, pick_device(), job.models.get("labels")).run(job.out)


@dataclass(frozen=True)
class _Fit:
    config: HubertConfig
    waveforms: Waveforms
    work: Path
    progress: Progress
    ranks: Ranks
    device: str
    teacher: Path | None = None

    def run(self, out: Path) -> dict[str, Any]:
        model, summaries = None, []
        for iteration in range(len(self.config.clusters)):
            if model is not None and self.ranks.first:
                _save(model, out / ITERATIONS / str(iteration))
            labels = self._labels(iteration, model)
            model, summary = self._train(iteration, labels, model)
            summaries.append(summary)
        assert model is not None  # noqa: S101 -- clusters has at least one entry
        if self.ranks.first:
            _save(model, out)
        self.ranks.barrier()
        seconds = sum(map(len, self.waveforms)) / 16_000
        parameters = sum(p.numel() for p in model.hubert.parameters())
        return {"train_seconds": round(seconds, 1), "parameters": parameters, "iterations": summaries}

    def _labels(self, iteration: int, model: MaskedPrediction | None) -> Labels:
        """K-means labels of the clips, int64[N] each, kept in `work`; each process labels its share."""
        kept = Checkpoint(self.work / f"labels-{iteration}.pt")
        self.ranks.barrier()
        if (state := kept.load(noting(self.progress))) is None:
            kmeans = self._codebook(iteration, model)
            own = self.waveforms[self.ranks.rank :: self.ranks.size]
            labels = self.ranks.gather([kmeans.assign(frames) for frames in self._features(own, model)])
            state = {"labels": [torch.from_numpy(clip) for clip in labels]}
            if self.ranks.first:
                kept.save(state)
        self.ranks.barrier()
        return [clip.numpy() for clip in state["labels"]]

    def _codebook(self, iteration: int, model: MaskedPrediction | None) -> KMeans:
        """Clusters of the first frames, found by the first process.

        The clips come in an order that is random (see `train_clips`), so the first ones are a fair sample.
        """
        path = self.work / f"kmeans-{iteration}.safetensors"
        if self.ranks.first:
            self.progress(self._begin(iteration), f"iteration {iteration + 1}: clustering frames")
            ends = np.cumsum([unit_count(len(waveform)) for waveform in self.waveforms])
            clips = 1 + int(np.searchsorted(ends, _FRAMES_CLUSTERED))
            kmeans = fit_kmeans(
                np.concatenate(list(self._features(self.waveforms[:clips], model))),
                self.config.clusters[iteration],
                seed=self.config.seed,
                normalize=model is not None or self.teacher is not None,
            )
            self.work.mkdir(parents=True, exist_ok=True)
            kmeans.save(path)
        self.ranks.barrier()
        return KMeans.load(path)

    def _features(self, waveforms: Waveforms, model: MaskedPrediction | None) -> Iterator[Frames]:
        """What is clustered of each clip, float32[N, D]: a layer of the model so far, or of a teacher; MFCC."""
        for frames in self._heard(waveforms, model):
            yield frames - frames.mean(axis=0, keepdims=True) if self.config.normalize_labels else frames

    def _heard(self, waveforms: Waveforms, model: MaskedPrediction | None) -> Iterator[Frames]:
        if model is None and self.teacher is None:
            yield from (mfcc_25hz(torch.from_numpy(waveform)) for waveform in waveforms)
            return
        encoder, layer = self._encoder(model)
        for start in range(0, len(waveforms), _CLIPS_AT_ONCE):
            yield from layer_frames(encoder, waveforms[start : start + _CLIPS_AT_ONCE], layer)

    def _encoder(self, model: MaskedPrediction | None) -> tuple[BlockEncoder, int]:
        """Whose features are clustered, and of which layer."""
        if model is not None:
            return HubertEncoder(model.hubert, self.config.teacher_layer), self.config.teacher_layer
        assert self.teacher is not None  # noqa: S101 - for mypy; the caller has looked
        layer = chosen_layer(self.teacher, self.config.labels_layer, "units.hubert.labels_layer")
        return load_encoder(self.teacher, layer, self.device), layer

    def _train(
        self, iteration: int, labels: Labels, previous: MaskedPrediction | None
    ) -> tuple[MaskedPrediction, dict[str, Any]]:
        """Masked prediction of `labels`; later iterations go on from the weights of the one before."""
        clusters = self.config.clusters[iteration]
        model = self._initial(iteration, previous)
        tape, checkpoint = Tape.of(self.waveforms, labels), self.work / f"iteration-{iteration}.pt"
        part = within(self.progress, self._begin(iteration), self._begin(iteration + 1))
        metrics = Pretraining(self.config, iteration, tape, checkpoint, self.ranks).run(model, part)
        used = round(perplexity(np.concatenate(labels), clusters), 1)
        return model, {"clusters": clusters, "label_perplexity": used, **metrics}

    def _initial(self, iteration: int, previous: MaskedPrediction | None) -> MaskedPrediction:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed + iteration)
            model = MaskedPrediction(self.config, self.config.clusters[iteration])
        if previous is not None:
            model.hubert.load_state_dict(previous.hubert.state_dict())
        return model.to(self.device)

    def _begin(self, iteration: int) -> float:
        """The share of all steps that comes before an iteration."""
        return sum(self.config.steps[:iteration]) / sum(self.config.steps)


def _save(model: MaskedPrediction, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.hubert.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2, sort_keys=True) + "\n")
