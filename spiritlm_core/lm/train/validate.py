"""Held-out loss during training."""

from __future__ import annotations

import torch

from spiritlm_core.lm.train.data import Batch, batches
from spiritlm_core.lm.train.metrics import StepLosses
from spiritlm_core.lm.train.run import Run
from spiritlm_core.lm.train.step import stream_sums
from spiritlm_core.tokens.corpus import STREAMS


class Validation:
    """Held-out sequences, shared out to the ranks once."""

    def __init__(self, run: Run) -> None:
        lm, world = run.job.config.lm, run.world
        found = run.job.source.held_out(run.vocabulary, count=lm.validation_sequences, seed=lm.seed)
        whole = list(batches(found, run.vocabulary.size, run.job.compute.micro_batch)) if found else []
        # FSDP computes together: every rank has as many forward passes, the last ones perhaps again what others have
        mine: list[Batch | None] = [*whole[world.rank :: world.size]]
        turns = -(-len(whole) // world.size)
        self._mine = mine + [None] * (turns - len(mine))
        self._spare = whole[:1]
        self._run = run

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._mine)

    @torch.no_grad()
    def losses(self) -> StepLosses:
        """Loss per stream over all held-out sequences; the same on every rank, and for any number of ranks."""
        world, objective = self._run.world, self._run.objective.eval()
        sums = torch.zeros(len(STREAMS), dtype=torch.float64, device=world.device)
        counts = torch.zeros(len(STREAMS), dtype=torch.int64, device=world.device)
        for mine in self._mine:
            batch = (mine or self._spare[0]).to(world.device)
            with world.arithmetic():
                _, nats = objective(batch)
            if mine:
                sums += stream_sums(nats, batch)
                counts += batch.counts()[:-1].to(world.device)
        objective.train()
        return StepLosses(world.sum(sums).cpu(), world.sum(counts).cpu())
