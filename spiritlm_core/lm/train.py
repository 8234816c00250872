"""The training loop: one function per idea, the same on one CPU and on many GPUs.

Run by :class:`spiritlm_core.lm.stage.ModelStage` in one process, by ``tasks.train`` in Ray Train workers, and by
``torchrun -m spiritlm_core.lm``. It knows torch.distributed and nothing of who started it.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from spiritlm_core.lake.stage import Progress
from spiritlm_core.lm.checkpoint import Checkpoints, RunState
from spiritlm_core.lm.data import IGNORED, Batch, Prefetch, Step, model_inputs, steps
from spiritlm_core.lm.errors import TrainingError
from spiritlm_core.lm.export import export_model
from spiritlm_core.lm.job import Job
from spiritlm_core.lm.metrics import StepLosses, flops_per_token, peak_flops, speed
from spiritlm_core.lm.model import CausalLM, build_model, count_parameters
from spiritlm_core.lm.optimizer import build_optimizer, clip_gradients, learning_rate, set_learning_rate
from spiritlm_core.lm.parallel import World
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.mix import training_batches
from spiritlm_core.tokens.vocabulary import Vocabulary


@dataclass
class Run:
    """The moving parts of a run on this rank."""

    job: Job
    world: World
    vocabulary: Vocabulary
    model: CausalLM
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    state: RunState


def train(job: Job, progress: Progress) -> dict[str, Any]:
    """Train to the last step, resuming from the latest checkpoint in ``job.work``, and write the model to ``job.out``.

    Every rank calls this, and `progress` is called on every rank at the same steps. On the CPU with a fixed number
    of threads, a run that was killed and resumed goes through the same losses, bit for bit, as one that was not.

    Returns:
        A small JSON-able summary; the same on every rank.

    Raises:
        TrainingError: the loss or the gradient is not finite, or SIGTERM arrived (a checkpoint was saved).
        CheckpointError: a checkpoint is there but cannot be loaded.
    """
    run = _start(job)
    with _Terminated() as terminated:
        _loop(run, terminated, progress)
    export_model(
        run.model, run.vocabulary, job.tokenizer, job.out, world=run.world, rows=run.state.rows, config=job.config
    )
    return _summary(run)


def _start(job: Job) -> Run:
    lm, compute = job.config.lm, job.compute
    world = World.current(compute, lm.precision)
    vocabulary = vocabulary_for(job.tokenizer, job.config.tokens.sequences)
    model: CausalLM = build_model(
        lm,
        vocabulary,
        context_length=job.config.tokens.context_length,
        base=job.base,
        attention=compute.attention,
    )
    model = world.place(
        model, checkpoint_activations=lm.activation_checkpointing, compile_blocks=compute.compile
    ).train()
    optimizer = build_optimizer(model, lm.optimizer)
    checkpoints = Checkpoints(job.work / "checkpoints", world, compute.keep_checkpoints)
    run = Run(job, world, vocabulary, model, optimizer, checkpoints, RunState(vocabulary.fingerprint()))
    path = job.resume_from or checkpoints.latest()
    if path is not None:
        run.state = checkpoints.restore(path, model, optimizer, run.state.vocabulary)
    return run


def _loop(run: Run, terminated: _Terminated, progress: Progress) -> None:
    lm, every, state = run.job.config.lm, run.job.compute.checkpoint_every, run.state
    with Prefetch(_data(run)) as data:
        while state.step < lm.steps:
            rate = learning_rate(lm.optimizer, state.step, lm.steps)
            stop = _step(run, next(data), rate, terminated)
            _report(run, progress)
            if stop or state.step == lm.steps or state.step % every == 0:
                path = run.checkpoints.save(run.model, run.optimizer, state)
            if stop:
                raise TrainingError(f"asked to stop; step {state.step} is saved in {path}, start again to go on")


def _data(run: Run) -> Iterator[Step]:
    config, world = run.job.config, run.world
    if config.sequences_per_step % world.size:
        raise TrainingError(
            f"{config.sequences_per_step} sequences per step cannot be shared evenly by {world.size} workers: "
            "change lm.tokens_per_step or the number of workers"
        )
    source = training_batches(
        run.job.sequences,
        run.vocabulary,
        config.tokens,
        seed=config.lm.seed,
        start_state=run.state.data,
        rank=world.rank,
        world_size=world.size,
    )
    return steps(source, run.vocabulary.size, config.sequences_per_step // world.size)


def _step(run: Run, step: Step, rate: float, terminated: _Terminated) -> bool:
    """One optimiser step over the tokens of all ranks, entered into the run's state; returns whether to stop.

    Raises:
        TrainingError: the loss or the gradient is not finite; nothing was updated.
    """
    begun = time.monotonic()
    batch = step.batch.to(run.world.device)
    counts = run.world.sum(batch.counts())
    sums = _backward(run, batch, int(counts[:-1].sum()))
    stop = run.world.sum(torch.tensor(float(terminated.flag), device=run.world.device))
    norm = clip_gradients(run.model, run.job.config.lm.optimizer.clip_norm)
    losses = StepLosses(sums.cpu(), counts[:-1].cpu())
    _check_finite(run, losses.mean, norm)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    _record(run, step, losses, int(counts[-1]), time.monotonic() - begun, learning_rate=rate, gradient_norm=norm)
    return bool(stop > 0)


def _backward(run: Run, batch: Batch, predicted: int) -> torch.Tensor:
    """Accumulate the gradient of the mean loss over `predicted` tokens; returns the losses of all ranks per stream."""
    sums = torch.zeros(len(STREAMS), dtype=torch.float64, device=run.world.device)
    parts = list(batch.split(run.job.compute.micro_batch))
    for index, part in enumerate(parts):
        if run.world.size > 1:
            run.model.set_requires_gradient_sync(index == len(parts) - 1)
        with run.world.arithmetic():
            nats = token_losses(run.model, part, run.job.compute.attention)
        torch.autograd.backward(nats.sum() / predicted)
        sums += stream_sums(nats.detach(), part.streams)
    return run.world.sum(sums)


def _record(run: Run, step: Step, losses: StepLosses, tokens: int, seconds: float, **more: float) -> None:
    state, length = run.state, run.job.config.tokens.context_length
    state.step += 1
    state.tokens += tokens
    state.seconds += seconds
    state.data = step.state
    row = {"step": state.step, "tokens": state.tokens, "loss": losses.mean, **losses.per_stream(), **more}
    flops, peak = flops_per_token(run.model, length), peak_flops(run.world.device)
    state.rows.append(row | {"seconds": seconds} | speed(tokens, seconds, flops, peak, run.world.size))


def token_losses(model: CausalLM, batch: Batch, attention: str = "sdpa") -> torch.Tensor:
    """float32[sequences, length]: negative log-likelihood of each target in nats, 0 where there is none."""
    logits = model(**model_inputs(batch, attention), use_cache=False).logits
    flat = nn.functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), batch.targets.view(-1), ignore_index=IGNORED, reduction="none"
    )
    return flat.view_as(batch.targets)


def stream_sums(nats: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    """float64[len(STREAMS)]: `nats` summed over the tokens of each stream."""
    return torch.stack([nats[streams == code].double().sum() for code in range(len(STREAMS))])


def _check_finite(run: Run, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    last = run.checkpoints.latest()
    raise TrainingError(
        f"step {run.state.step + 1}: loss {loss}, gradient norm {norm}: training diverged. Lower "
        f"lm.optimizer.learning_rate or raise warmup_steps; the last good checkpoint is {last or 'not written yet'}"
    )


def _report(run: Run, progress: Progress) -> None:
    step, total = run.state.step, run.job.config.lm.steps
    if step % run.job.compute.log_every == 0 or step == total:
        row = run.state.rows[-1]
        progress(step / total, f"step {step}/{total}: loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s")


def _summary(run: Run) -> dict[str, Any]:
    state, last = run.state, run.state.rows[-1]
    return {
        "parameters": count_parameters(run.model),
        "vocabulary_size": run.vocabulary.size,
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 1),
        "tokens_per_second": round(state.tokens / state.seconds),
        **{name: last[name] for name in ("loss", *(f"loss_{stream}" for stream in STREAMS))},
    }


class _Terminated:
    """Whether SIGTERM arrived. Signals reach the main thread only; elsewhere the flag stays down."""

    def __init__(self) -> None:
        self.flag = False
        self._main = threading.current_thread() is threading.main_thread()

    def _raise_flag(self, *_: object) -> None:
        self.flag = True

    def __enter__(self) -> Self:
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._raise_flag)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)
