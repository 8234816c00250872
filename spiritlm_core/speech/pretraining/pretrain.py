"""The optimizer steps of one HuBERT iteration: resumable, and shared by as many processes as there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.fit.steps import Steps, set_rate
from spiritlm_core.lake.stage import Progress
from spiritlm_core.speech.pretraining.config import HubertConfig
from spiritlm_core.speech.pretraining.masked_prediction import MaskedPrediction, Tape, draw_masks, hubert_loss

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
        parts = {"model": model, "optimizer": optimizer}
        steps = Steps(self.config.steps[self.iteration], parts, self.checkpoint, self.ranks)
        steps.run(partial(self._step, model, optimizer), progress, f"iteration {self.iteration + 1}, ")
        first, last = steps.ends
        return {
            "steps": steps.count,
            "loss_first": round(float(first[0]), 4),
            "loss_last": round(float(last[0]), 4),
            "masked_accuracy": round(float(last[1]), 4),
        }

    def _step(self, model: MaskedPrediction, optimizer: torch.optim.Optimizer, step: int) -> list[float]:
        """One update; loss and accuracy on masked frames, over the crops of all processes."""
        waveforms, labels, masked, counts = self._batch(step, next(model.parameters()).device)
        set_rate(optimizer, self.config.learning_rate * learning_rate_scale(step, self.config.steps[self.iteration]))
        optimizer.zero_grad()
        with _randomness(self.config.seed, self.iteration, step, self.ranks.rank), self.ranks.arithmetic():
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
