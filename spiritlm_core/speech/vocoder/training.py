"""The optimizer steps of a vocoder: resumable, and shared by as many processes as there are."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritlm_core.errors import RecipeError, SpiritLMError
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.fit.steps import Steps, set_rate
from spiritlm_core.lake.stage import Progress
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.fit_config import VocoderFitConfig
from spiritlm_core.speech.vocoder.losses import (
    Discriminators,
    Judgement,
    MelDistance,
    adversarial_loss,
    discriminator_loss,
    duration_loss,
    feature_loss,
)
from spiritlm_core.speech.vocoder.model import VocoderModel
from spiritlm_core.speech.vocoder.tape import Tape

LOSSES = ("mel", "duration", "adversarial", "features", "discriminator")
"""Columns of the history; the last three are 0 before the discriminators take part."""

_RUNS = 128
_BETAS = (0.8, 0.99)


class Batch:
    """This process's crops of a step, on the device."""

    def __init__(self, tape: Tape, config: VocoderFitConfig, step: int, ranks: Ranks, device: torch.device) -> None:
        crops, runs = [], []
        for i in range(ranks.rank, config.batch_crops, ranks.size):
            rng = np.random.default_rng([config.seed, step, i])
            crops.append(tape.crop(int(rng.integers(tape.frames - config.crop_frames + 1)), config.crop_frames))
            runs.append(int(rng.integers(max(1, len(tape.runs) - _RUNS + 1))))
        self.share = len(crops) / config.batch_crops
        self.waveforms = torch.from_numpy(np.stack([waveform for waveform, _ in crops])).to(device)
        self.streams = {
            name: torch.from_numpy(np.stack([streams[name] for _, streams in crops])).long().to(device)
            for name in tape.streams
        }
        self.runs = _rows(tape.runs, runs).to(device)
        self.lasting = _rows(tape.lasting, runs).to(device)


def _rows(tape: Any, starts: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.stack([tape[start : start + _RUNS] for start in starts])).long()


def _middle(waveforms: torch.Tensor, frames: int) -> torch.Tensor:
    """The middle `frames` of crops float32[B, T]: what is made of them has units on both sides to go by."""
    spare = max(0, waveforms.shape[-1] - frames * FRAME) // 2
    return waveforms[:, spare : waveforms.shape[-1] - spare]


class Training:
    """A vocoder, its discriminators and their optimizers.

    What a step sees follows from (seed, step) and the number of the crop alone. So neither a kill nor the number of
    processes changes it: each process computes the crops ``rank, rank + size, …`` of the batch.
    """

    def __init__(self, config: VocoderFitConfig, tape: Tape, model: VocoderModel, ranks: Ranks) -> None:
        """Raises RecipeError: there are more processes than crops in a batch."""
        if config.batch_crops < ranks.size:
            raise RecipeError(
                f"vocoder.batch_crops is {config.batch_crops}, too few for {ranks.size} processes: raise it"
            )
        self.config, self.tape, self.model, self.ranks = config, tape, model, ranks
        self.device = next(model.parameters()).device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed + 1)
            self.discriminators = Discriminators(config.discriminators).to(self.device)
        self.distance = MelDistance().to(self.device)
        self.optimizers = {
            "model": torch.optim.AdamW(model.parameters(), betas=_BETAS, fused=True),
            "discriminators": torch.optim.AdamW(self.discriminators.parameters(), betas=_BETAS, fused=True),
        }

    def run(self, work: Path, progress: Progress) -> Steps:
        """Train in place, from the last checkpoint in `work` if there is one, and return the steps that were taken.

        Raises SpiritLMError: a loss is not finite.
        """
        optimizers = {f"{name}_optimizer": optimizer for name, optimizer in self.optimizers.items()}
        parts = {"model": self.model, "discriminators": self.discriminators, **optimizers}
        steps = Steps(self.config.steps, parts, work / "vocoder.pt", self.ranks)
        steps.run(self._step, progress, "vocoder, ")
        return steps

    def _step(self, step: int) -> list[float]:
        """One update of the generator, and of the discriminators where they take part; the losses over all crops."""
        batch = Batch(self.tape, self.config, step, self.ranks, self.device)
        adversarial = step >= self.config.adversarial_from
        with self.ranks.arithmetic():
            made = self.model.train()(batch.streams)
        made = made.float()
        judging = self._judge(batch, made.detach(), step) if adversarial else 0.0
        losses = self._losses(batch, made, adversarial=adversarial)
        weights = self.config.weights
        scales = (weights.mel, weights.duration, weights.adversarial, weights.features)
        loss = torch.stack([scale * one for scale, one in zip(scales, losses, strict=True)]).sum() * batch.share
        torch.autograd.backward(loss)
        told = torch.stack(losses).detach() * batch.share
        found = self._update("model", self.model.parameters(), told, step)
        return [*found, judging]

    def _losses(self, batch: Batch, made: torch.Tensor, *, adversarial: bool) -> list[torch.Tensor]:
        """Mel distance, duration error, deceit and feature distance of this process's crops."""
        mel = self.distance(made, batch.waveforms)
        lasting = duration_loss(self.model.log_frames(batch.runs), batch.lasting)
        if not adversarial:
            return [mel, lasting, mel.new_zeros(()), mel.new_zeros(())]
        self.discriminators.requires_grad_(False)
        with torch.no_grad():
            real = self._verdicts(batch.waveforms)
        judged = self._verdicts(made)
        self.discriminators.requires_grad_(True)
        return [mel, lasting, adversarial_loss(judged), feature_loss(real, judged)]

    def _verdicts(self, waveforms: torch.Tensor) -> list[Judgement]:
        """What the discriminators make of the middle of crops."""
        with self.ranks.arithmetic():
            return self.discriminators(_middle(waveforms, self.config.judged_frames))

    def _judge(self, batch: Batch, made: torch.Tensor, step: int) -> float:
        """One update of the discriminators; their loss."""
        real, judged = (self._verdicts(some) for some in (batch.waveforms, made))
        loss = discriminator_loss(real, judged) * batch.share
        torch.autograd.backward(loss)
        return self._update("discriminators", self.discriminators.parameters(), loss.detach()[None], step)[0]

    def _update(
        self, name: str, parameters: Iterable[torch.nn.Parameter], told: torch.Tensor, step: int
    ) -> list[float]:
        """Update from the gradients of all processes; what they `told`, float32[n], summed."""
        summed = self.ranks.sum_gradients(list(parameters), told)
        if not bool(summed.isfinite().all()):
            raise SpiritLMError(f"the vocoder's loss is not finite in step {step + 1}: lower vocoder.learning_rate")
        optimizer = self.optimizers[name]
        set_rate(optimizer, self.config.learning_rate * learning_rate_scale(step, self.config.steps))
        optimizer.step()
        optimizer.zero_grad()
        return [float(value) for value in summed]
