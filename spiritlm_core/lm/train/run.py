"""The moving parts of a training run on one rank, and how they are put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from spiritlm_core.errors import TrainingError
from spiritlm_core.fit.checkpoints import Tell
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lm.model.lora import add_adapters
from spiritlm_core.lm.model.network import CausalLM, build_model
from spiritlm_core.lm.train.checkpoint import Checkpoints, RunState
from spiritlm_core.lm.train.data import Step, steps
from spiritlm_core.lm.train.objective import Objective, model_attention, place, share_blocks
from spiritlm_core.lm.train.optimizer import build_optimizer
from spiritlm_core.lm.train.source import Training
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.hf import load_vocabulary, vocabulary_for
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary


@dataclass
class Run:
    """The moving parts of a run on this rank."""

    training: Training
    ranks: Ranks
    vocabulary: Vocabulary
    objective: Objective
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    state: RunState

    @property
    def lm(self) -> CausalLM:
        """The model in training."""
        return self.objective.lm

    @property
    def ended_early(self) -> str | None:
        """How training ended before its last step, since the held-out loss fell no more; None while it goes on."""
        patience, steps, state = self.training.config.lm.patience, self.training.config.lm.steps, self.state
        if patience is None or state.looks_since_best < patience or state.step >= steps:
            return None
        return f"after {state.step} of {steps} steps: the held-out loss was lowest at step {state.best_step}"


def start(training: Training, tell: Tell) -> Run:
    """Build model and optimiser, and go on from the last checkpoint that is whole, or from the one that is named.

    Raises CheckpointError: a checkpoint is there but cannot be loaded; DamagedCheckpointError: all checkpoints are
    damaged; SpiritLMError: the model cannot be built.
    """
    lm, compute = training.config.lm, training.compute
    ranks = Ranks.current(compute.use_gpu, lm.precision)
    vocabulary = vocabulary_of(training.tokenizer, training.config.tokens.sequences)
    model: CausalLM = build_model(
        lm,
        vocabulary,
        context_length=training.config.tokens.context_length,
        base=training.job.models.get("base"),
        quantizer=training.job.models.get("quantizer"),
        attention=model_attention(compute.attention),
        share=partial(share_blocks, ranks=ranks) if ranks.size > 1 and lm.lora is None else None,
    )
    if lm.lora is not None:
        add_adapters(model, lm.lora)
    objective = place(Objective(model, compute.attention, lm.loss, lm.stream_weights), ranks, compute).train()
    optimizer = build_optimizer(model, lm.optimizer)
    checkpoints = Checkpoints(training.job.work / "checkpoints", ranks, compute)
    state = RunState(vocabulary.fingerprint(), training.source.fingerprint())
    if training.job.resume_from is not None:
        checkpoints.check(training.job.resume_from)
    path = training.job.resume_from or checkpoints.usable(tell)
    if path is not None:
        state = checkpoints.restore(path, model, optimizer, state)
        if path.parent != checkpoints.folder:  # its best checkpoint is not among ours
            state.best_step, state.best_loss, state.looks_since_best = None, None, 0
        elif lm.export == "best" and state.best_step is not None:
            checkpoints.check(checkpoints.at(state.best_step))  # now, not after the last step
    return Run(training, ranks, vocabulary, objective, optimizer, checkpoints, state)


def vocabulary_of(folder: Path, sizes: SequencesConfig) -> Vocabulary:
    """The vocabulary of a model's folder, or the one that follows the ids of a text tokenizer's."""
    return load_vocabulary(folder) if (folder / VOCABULARY_FILE).is_file() else vocabulary_for(folder, sizes)


def training_data(run: Run) -> Iterator[Step]:
    """The steps of this rank, from where the run stands, without end.

    Raises TrainingError: the sequences of a step cannot be shared evenly.
    """
    training, ranks = run.training, run.ranks
    share, rest = divmod(training.config.sequences_per_step, ranks.size)
    if rest:
        raise TrainingError(
            f"{training.config.sequences_per_step} sequences per step cannot be shared evenly by {ranks.size} workers: "
            "change lm.tokens_per_step or the number of workers"
        )
    source = training.source.batches(
        run.vocabulary, seed=training.config.lm.seed, start_state=run.state.data, rank=ranks.rank, world_size=ranks.size
    )
    return steps(source, run.vocabulary.size, share, training.compute.micro_batch)
