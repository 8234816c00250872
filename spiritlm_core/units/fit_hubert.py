"""Fitting a small HuBERT on the corpus itself, where no published one can be had or is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores
from spiritlm_core.errors import RecipeError
from spiritlm_core.lake.stage import ArtifactStage, Progress, Resources
from spiritlm_core.lake.view import TableView
from spiritlm_core.units.config import HubertConfig
from spiritlm_core.units.training import (
    FIT_INPUT,
    Checkpoint,
    learning_rate_scale,
    perplexity,
    pick_device,
    train_clips,
)
from spiritlm_core.units.types import SHORTEST

if TYPE_CHECKING:
    import torch

    from spiritlm_core.units.masked_prediction import MaskedPrediction, Tape

_CHECKPOINT_EVERY = 50
_FRAMES_CLUSTERED = 100_000
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


class HubertFit(ArtifactStage):
    """Fits HuBERT by masked prediction; the artifact is an ordinary Hugging Face HubertModel folder."""

    name = "hubert"
    version = 1
    inputs = (FIT_INPUT,)
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: HubertConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Run the iterations; a killed build goes on from its last checkpoint and ends with the same weights."""
        if self.config.model is not None:
            raise RecipeError(f"hubert.model is {self.config.model}: there is nothing to fit")
        clips = train_clips(tables["audio"], self.config.max_minutes, self.config.seed)
        waveforms = [clip.waveform for clip in clips if len(clip.waveform) >= SHORTEST]
        with all_cores():
            return _Fit(self.config, waveforms, work, progress).run(out)


class _Fit:
    def __init__(self, config: HubertConfig, waveforms: Waveforms, work: Path, progress: Progress) -> None:
        self.config = config
        self.waveforms = waveforms
        self.work = work
        self.progress = progress
        self.device = pick_device()

    def run(self, out: Path) -> dict[str, Any]:
        model, summaries = None, []
        for iteration in range(len(self.config.clusters)):
            labels = self._labels(iteration, model)
            model, summary = self._train(iteration, labels, model)
            summaries.append(summary)
        assert model is not None  # noqa: S101 -- clusters has at least one entry
        _save(model, out)
        seconds = sum(map(len, self.waveforms)) / 16_000
        parameters = sum(p.numel() for p in model.hubert.parameters())
        return {"train_seconds": round(seconds, 1), "parameters": parameters, "iterations": summaries}

    def _labels(self, iteration: int, model: MaskedPrediction | None) -> Labels:
        """K-means labels of the clips, int64[N] each, kept in `work` for a later attempt."""
        path = self.work / f"labels-{iteration}.npz"
        if not path.exists():
            self.progress(self._fraction(iteration, 0), f"iteration {iteration + 1}: clustering frames")
            features = self._mfcc() if model is None else self._layer(model)
            labels = self._cluster(features, iteration)
            self.work.mkdir(parents=True, exist_ok=True)
            np.savez(path.with_suffix(".tmp.npz"), *labels)
            path.with_suffix(".tmp.npz").replace(path)
        with np.load(path) as stored:
            return [stored[f"arr_{i}"] for i in range(len(self.waveforms))]

    def _mfcc(self) -> list[NDArray[np.float32]]:
        import torch

        from spiritlm_core.units.mfcc import mfcc_25hz

        return [mfcc_25hz(torch.from_numpy(waveform)) for waveform in self.waveforms]

    def _layer(self, model: MaskedPrediction) -> list[NDArray[np.float32]]:
        from spiritlm_core.units.hubert import HubertFeatures

        layer = self.config.cluster_layer
        return [features[layer] for features in HubertFeatures(model.hubert, [layer])(self.waveforms)]

    def _cluster(self, features: list[NDArray[np.float32]], iteration: int) -> Labels:
        from spiritlm_core.units.kmeans import fit_kmeans

        frames = np.concatenate(features)
        rng = np.random.default_rng([self.config.seed, iteration])
        sample = rng.choice(len(frames), min(len(frames), _FRAMES_CLUSTERED), replace=False)
        kmeans = fit_kmeans(frames[np.sort(sample)], self.config.clusters[iteration], seed=self.config.seed)
        return [kmeans.assign(clip) for clip in features]

    def _train(
        self, iteration: int, labels: Labels, previous: MaskedPrediction | None
    ) -> tuple[MaskedPrediction, dict[str, Any]]:
        """Masked prediction of `labels`; later iterations go on from the weights of the one before."""
        import torch

        from spiritlm_core.units.masked_prediction import MaskedPrediction, Tape

        torch.manual_seed(self.config.seed + iteration)
        model = MaskedPrediction(self.config, self.config.clusters[iteration])
        if previous is not None:
            model.hubert.load_state_dict(previous.hubert.state_dict())
        metrics = self._steps(iteration, model.to(self.device), Tape.of(self.waveforms, labels))
        units = np.concatenate(labels)
        clusters = self.config.clusters[iteration]
        return model, {"clusters": clusters, "label_perplexity": round(perplexity(units, clusters), 1), **metrics}

    def _steps(self, iteration: int, model: MaskedPrediction, tape: Tape) -> dict[str, Any]:
        import torch

        optimizer = torch.optim.AdamW(
            model.parameters(), self.config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        checkpoint = Checkpoint(self.work / f"iteration-{iteration}.pt")
        history: list[list[float]] = []
        if state := checkpoint.load():
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            history = state["history"]
        steps = self.config.steps[iteration]
        for step in range(len(history), steps):
            history.append(self._step(model, optimizer, tape, iteration, step))
            if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == steps:
                parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
                checkpoint.save(parts)
                message = f"iteration {iteration + 1}, step {step + 1}/{steps}, loss {history[-1][0]:.2f}"
                self.progress(self._fraction(iteration, (step + 1) / steps), message)
        return _metrics(history)

    def _step(
        self, model: MaskedPrediction, optimizer: torch.optim.Optimizer, tape: Tape, iteration: int, step: int
    ) -> list[float]:
        """One update from randomness that depends on (seed, iteration, step) alone; [loss, masked accuracy]."""
        import torch

        from spiritlm_core.units.masked_prediction import draw_masks, hubert_loss

        rng = np.random.default_rng([self.config.seed, iteration, step])
        waveforms, labels = tape.crops(self.config.batch_crops, self.config.crop_frames, rng)
        masked = draw_masks((len(labels), labels.shape[1]), self.config.mask_prob, self.config.mask_length, rng)
        waveforms, labels, masked = (tensor.to(self.device) for tensor in (waveforms, labels, masked))
        for group in optimizer.param_groups:
            group["lr"] = self.config.learning_rate * learning_rate_scale(step, self.config.steps[iteration])
        logits = model.train()(waveforms, masked)
        loss = hubert_loss(logits, labels, masked, self.config.masked_weight)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return [loss.item(), (logits.argmax(-1) == labels)[masked].float().mean().item()]

    def _fraction(self, iteration: int, done: float) -> float:
        before = sum(self.config.steps[:iteration])
        return (before + done * self.config.steps[iteration]) / sum(self.config.steps)


def _metrics(history: list[list[float]]) -> dict[str, Any]:
    """First and last loss and accuracy on masked frames, averaged over a twentieth of the steps each."""
    window = max(1, len(history) // 20)
    first, last = np.mean(history[:window], axis=0), np.mean(history[-window:], axis=0)
    return {
        "steps": len(history),
        "loss_first": round(float(first[0]), 4),
        "loss_last": round(float(last[0]), 4),
        "masked_accuracy": round(float(last[1]), 4),
    }


def _save(model: MaskedPrediction, out: Path) -> None:
    model.cpu().hubert.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2, sort_keys=True) + "\n")
