"""The optimizer steps of one HuBERT iteration: resumable, and shared by as many processes as there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.checkpoints import Checkpoint, Tell
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.lake.stage import Progress, noting
from spiritlm_core.speech.pretraining.config import HubertConfig
from spiritlm_core.speech.pretraining.masked_prediction import MaskedPrediction, Tape, draw_masks, hubert_loss

CHECKPOINT_EVERY = 50
_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Pretraining:
    """Masked prediction of the labels of a tape, from a model as it is to the end of the iteration's steps.

    What a step sees follows from (seed, iteration, step) and, crop by crop, from the crop's number. So neither a kill
    nor the number of processes changes it: each process computes the crops ``rank, rank + size, …`` of the batch.
    """

    config: HubertConfig
    iteration: int
    tape: Tape
    checkpoint: Path
    ranks: Ranks

    def run(self, model: MaskedPrediction, progress: Progress) -> dict[str, Any]:
        """Train in place, from the last checkpoint if there is one; first and last loss and accuracy.

        Raises RecipeError: there are more processes than crops in a batch.
        """
        if self.config.batch_crops < self.ranks.size:
            raise RecipeError(
                f"hubert.batch_crops is {self.config.batch_crops}, too few for {self.ranks.size} processes: raise it"
            )
        optimizer = torch.optim.AdamW(
            model.parameters(), self.config.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY
        )
        history, steps = self._resume(model, optimizer, noting(progress)), self.config.steps[self.iteration]
        for step in range(len(history), steps):
            history.append(self._step(model, optimizer, step))
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                self._keep(model, optimizer, history)
                message = f"iteration {self.iteration + 1}, step {step + 1}/{steps}, loss {history[-1][0]:.2f}"
                progress((step + 1) / steps, message)
        return _metrics(history)

    def _resume(self, model: MaskedPrediction, optimizer: torch.optim.Optimizer, tell: Tell) -> list[list[float]]:
        self.ranks.barrier()
        state = Checkpoint(self.checkpoint).load(tell)
        self.ranks.barrier()
        if state is None:
            return []
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history: list[list[float]] = state["history"]
        return history

    def _keep(self, model: MaskedPrediction, optimizer: torch.optim.Optimizer, history: list[list[float]]) -> None:
        if self.ranks.first:
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
            Checkpoint(self.checkpoint).save(parts)

    def _step(self, model: MaskedPrediction, optimizer: torch.optim.Optimizer, step: int) -> list[float]:
        """One update; loss and accuracy on masked frames, over the crops of all processes."""
        waveforms, labels, masked, counts = self._batch(step, next(model.parameters()).device)
        for group in optimizer.param_groups:
            group["lr"] = self.config.learning_rate * learning_rate_scale(step, self.config.steps[self.iteration])
        optimizer.zero_grad()
        with _randomness(self.config.seed, self.iteration, step, self.ranks.rank), _arithmetic(waveforms.device):
            logits = model.train()(waveforms, masked).float()
        loss = hubert_loss(logits, labels, masked, self.config.masked_weight, counts)
        torch.autograd.backward(loss)
        right = (logits.argmax(-1) == labels)[masked].sum() / max(1, counts[0])
        summed = self.ranks.sum_gradients(model.parameters(), torch.stack([loss.detach(), right]))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return [float(value) for value in summed]

    def _batch(
        self, step: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, int]]:
        """This process's waveforms, labels and masks; and the masked and other frames of the whole batch."""
        config, place = self.config, [self.config.seed, self.iteration, step]
        shape = (config.batch_crops, config.crop_frames)
        masked = draw_masks(shape, config.mask_prob, config.mask_length, np.random.default_rng(place))
        mine = range(self.ranks.rank, config.batch_crops, self.ranks.size)
        crops = [
            self.tape.crop(config.crop_frames, np.random.default_rng([*place, 1 + i]), config.perturb) for i in mine
        ]
        waveforms = torch.from_numpy(np.stack([waveform for waveform, _ in crops])).to(device)
        labels = torch.from_numpy(np.stack([labels for _, labels in crops])).to(device)
        hidden = int(masked.sum())
        return waveforms, labels, masked[list(mine)].to(device), (hidden, masked.numel() - hidden)


@contextmanager
def _randomness(*place: int) -> Iterator[None]:
    """Dropout drawn from `place` alone, the generators of torch as they were afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        yield


def _arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """bf16 products on a GPU, float32 on a CPU; weights are float32 in any case."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


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
