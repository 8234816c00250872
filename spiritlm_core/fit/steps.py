"""The optimizer steps of a fit: on from the last checkpoint, and a new one every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spiritlm_core.fit.checkpoints import Checkpoint
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lake.stage import Progress, noting

CHECKPOINT_EVERY = 100
REPORT_EVERY = 10


@dataclass
class Steps:
    """So many steps; what a step does follows from its number and the `parts` alone, so that a kill changes nothing."""

    count: int
    parts: Mapping[str, Any]  # what a step changes: models, optimizers, whatever has a ``state_dict``
    checkpoint: Path
    ranks: Ranks = field(default_factory=Ranks)
    history: list[list[float]] = field(default_factory=list)  # the losses of each step that was taken

    def run(self, step: Callable[[int], Sequence[float]], progress: Progress, about: str = "") -> None:
        """Take the steps that are left: `step` takes one, counted from 0, and returns its losses, the main one first.

        Messages begin with `about`.
        """
        self._resume(noting(progress))
        for done in range(len(self.history) + 1, self.count + 1):
            self.history.append([*step(done - 1)])
            if done % CHECKPOINT_EVERY == 0 or done == self.count:
                self._keep()
            if done % REPORT_EVERY == 0 or done == self.count:
                progress(done / self.count, f"{about}step {done}/{self.count}, loss {self.history[-1][0]:.3f}")

    @property
    def ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses of the first and of the last twentieth of the steps, averaged."""
        window = max(1, len(self.history) // 20)
        return np.mean(self.history[:window], axis=0), np.mean(self.history[-window:], axis=0)

    def _resume(self, tell: Callable[[str], None]) -> None:
        self.ranks.barrier()
        state = Checkpoint(self.checkpoint).load(tell)
        self.ranks.barrier()
        if state is None or state.keys() != {*self.parts, "history"}:  # an earlier version kept other parts
            return
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history = state["history"]

    def _keep(self) -> None:
        if self.ranks.first:
            parts = {name: part.state_dict() for name, part in self.parts.items()}
            Checkpoint(self.checkpoint).save({**parts, "history": self.history})


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
