"""The training loop, the same on one CPU and on many GPUs.

It knows torch.distributed, and nothing of who started it: a job of :mod:`spiritlm_core.fit.job` does, alone, as one of
the workers of Ray Train, or of the processes of ``torchrun``.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any, Self

from spiritlm_core.errors import TrainingError
from spiritlm_core.lake.stage import Progress, noting
from spiritlm_core.lm.model.network import count_parameters
from spiritlm_core.lm.train.data import Prefetch
from spiritlm_core.lm.train.export import export_model
from spiritlm_core.lm.train.metrics import Metrics
from spiritlm_core.lm.train.optimizer import learning_rate
from spiritlm_core.lm.train.run import Run, start, training_data
from spiritlm_core.lm.train.source import Training
from spiritlm_core.lm.train.step import Validation, optimizer_step
from spiritlm_core.tokens.corpus import shown_streams


def train(training: Training, progress: Progress) -> dict[str, Any]:
    """Train to the last step, resuming from the latest checkpoint in `work`, and write the model to `out`.

    With `lm.patience` training ends earlier where the held-out loss falls no more.
    Every rank calls this, and `progress` is called on every rank at the same steps. On the CPU with a fixed number
    of threads, a run that was killed and resumed goes through the same losses, bit for bit, as one that was not.

    Returns:
        A small JSON-able summary; the same on every rank.

    Raises:
        TrainingError: the loss or the gradient is not finite, or the run was asked to stop (a checkpoint was saved).
        CheckpointError: a checkpoint is there but cannot be loaded, or one cannot be written.
    """
    run = start(training, noting(progress))
    with _Stop(training.stop_file) as stop, Metrics(run) as metrics:
        _loop(run, stop, metrics, progress)
    if training.config.lm.export == "best" and run.state.best_step is not None:
        run.checkpoints.restore_weights(run.checkpoints.at(run.state.best_step), run.lm)
    export_model(run)
    return _summary(run)


def _loop(run: Run, stop: _Stop, metrics: Metrics, progress: Progress) -> None:
    lm, state, every = run.training.config.lm, run.state, run.training.compute.checkpoint_every
    validation = Validation(run)
    with Prefetch(training_data(run)) as data:
        while state.step < lm.steps and not run.ended_early:
            begun, rate = time.monotonic(), learning_rate(lm.optimizer, state.step, lm.steps)
            step = next(data)
            outcome = optimizer_step(run, step, rate, asked_to_stop=stop.asked)
            state.data = step.state
            metrics.record(outcome, rate, seconds=time.monotonic() - begun, waited=data.waited)
            better = _validate(run, validation, metrics)
            _report(run, progress)
            last = state.step == lm.steps or bool(run.ended_early)
            if outcome.stop or better or last or state.step % every == 0:
                path = run.checkpoints.save(run.lm, run.optimizer, state)
            if outcome.stop:
                run.checkpoints.finish()
                if run.ranks.first:
                    run.training.stop_file.unlink(missing_ok=True)
                raise TrainingError(f"asked to stop; step {state.step} is saved in {path}, start again to go on")
    run.checkpoints.finish()


def _validate(run: Run, validation: Validation, metrics: Metrics) -> bool:
    """Look at the held-out sequences if it is time to; returns whether their loss was never lower.

    What is compared weighs streams as training does; what is recorded does not.
    """
    lm, state = run.training.config.lm, run.state
    if not validation or (state.step % lm.validate_every and state.step != lm.steps):
        return False
    losses = validation.losses()
    metrics.record_validation(losses)
    weight = run.objective.weighted(losses.counts.tolist()) if lm.stream_weights else 0
    loss = run.objective.weighted(losses.sums.tolist()) / weight if weight else losses.mean
    if state.best_loss is not None and loss >= state.best_loss:
        state.looks_since_best += 1
        return False
    state.best_step, state.best_loss, state.looks_since_best = state.step, loss, 0
    return True


def _report(run: Run, progress: Progress) -> None:
    step, total = run.state.step, run.training.config.lm.steps
    row = run.state.rows[-1]
    if run.ended_early:
        progress(1.0, f"training ended {run.ended_early}")
    elif step % run.training.compute.log_every == 0 or step == total:
        progress(step / total, f"step {step}/{total}: loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s")


def _summary(run: Run) -> dict[str, Any]:
    state, last = run.state, run.state.rows[-1]
    streams = shown_streams(run.training.config.tokens.shares)
    return {
        "parameters": count_parameters(run.lm),
        "vocabulary_size": run.vocabulary.size,
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 1),
        "tokens_per_second": round(state.tokens / state.seconds),
        **{name: last[name] for name in ("loss", *(f"loss_{stream}" for stream in streams))},
        "validation_loss": state.best_loss,
        "validation_step": state.best_step,
        "ended_early": run.ended_early,
    }


class _Stop:
    """Whether this process was asked to stop: by SIGTERM, or by a file where no signal reaches it.

    Signals reach the main thread only. Under Ray the loop runs in another one, and the driver writes the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signalled = False
        self._main = threading.current_thread() is threading.main_thread()

    @property
    def asked(self) -> bool:
        """Whether to stop after this step."""
        return self._signalled or self._file.exists()

    def _remember(self, *_: object) -> None:
        self._signalled = True

    def __enter__(self) -> Self:
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)
