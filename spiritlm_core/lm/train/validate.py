"""Held-out loss during training."""

from __future__ import annotations

import torch

from spiritlm_core.lm.train.data import Batch, batches
from spiritlm_core.lm.train.run import Run
from spiritlm_core.lm.train.step import StepLosses, stream_sums
from spiritlm_core.tokens.corpus import STREAMS


class Validation:
    """Held-out sequences, shared out to the ranks once."""

    def __init__(self, run: Run) -> None:
        lm, ranks = run.training.config.lm, run.ranks
        held_out = run.training.source.held_out(run.vocabulary, count=lm.validation_sequences, seed=lm.seed)
        whole = list(batches(held_out, run.vocabulary.size, run.training.compute.micro_batch)) if held_out else []
        # FSDP computes together: every rank has as many forward passes, the last ones perhaps again what others have
        mine: list[Batch | None] = [*whole[ranks.rank :: ranks.size]]
        turns = -(-len(whole) // ranks.size)
        self._mine = mine + [None] * (turns - len(mine))
        self._spare = whole[:1]
        self._run = run

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._mine)

    @torch.no_grad()
    def losses(self) -> StepLosses:
        """Loss per stream over all held-out sequences; the same on every rank, and for any number of ranks."""
        ranks, objective = self._run.ranks, self._run.objective.eval()
        sums = torch.zeros(len(STREAMS), dtype=torch.float64, device=ranks.device)
        counts = torch.zeros(len(STREAMS), dtype=torch.int64, device=ranks.device)
        for mine in self._mine:
            batch = (mine or self._spare[0]).to(ranks.device)
            with ranks.arithmetic():
                _, nats = objective(batch)
            if mine:
                sums += stream_sums(nats, batch)
                counts += batch.counts()[:-1].to(ranks.device)
        objective.train()
        return StepLosses(ranks.sum(sums).cpu(), ranks.sum(counts).cpu())
