"""The training loop, the same on one CPU and on many GPUs, and the Hugging Face folder that it writes.

It knows torch.distributed, and nothing of who started it: a job of :mod:`spiritlm_core.fit.job` does, alone, as one of
the workers of Ray Train, or of the processes of ``torchrun``.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from spiritlm_core.cores import large_products
from spiritlm_core.errors import TrainingError
from spiritlm_core.files import read_json
from spiritlm_core.lake.stage import Progress, noting
from spiritlm_core.lm.model.lora import merged, save_adapters
from spiritlm_core.lm.model.network import CausalLM, count_parameters
from spiritlm_core.lm.train.data import Prefetch
from spiritlm_core.lm.train.optimizer import learning_rate
from spiritlm_core.lm.train.run import Run, start, training_data
from spiritlm_core.lm.train.source import Training
from spiritlm_core.lm.train.step import Metrics, Validation, optimizer_step
from spiritlm_core.tokens.corpus import shown_streams
from spiritlm_core.tokens.hf import TOKENIZER_FILES, copy_files, save_tokenizer, write_model_config
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary


def train(training: Training, progress: Progress) -> dict[str, Any]:
    """Train to the last step, resuming from the latest checkpoint in `work`, and write the model to `out`.

    With `lm.patience` training ends earlier where the held-out loss falls no more.
    Every rank calls this, and `progress` is called on every rank at the same steps. On the CPU with a fixed number
    of threads, a run that was killed and resumed goes through the same losses, bit for bit, as one that was not.

    Returns a small JSON-able summary; the same on every rank. Raises TrainingError: the loss or the gradient is not
    finite, or the run was asked to stop (a checkpoint was saved); CheckpointError: a checkpoint is there but cannot be
    loaded, or one cannot be written.
    """
    run = start(training, noting(progress))
    with _Stop(training.stop_file) as stop, Metrics(run) as metrics, large_products(large=not run.ranks.bf16):
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


def export_model(run: Run) -> None:
    """Write a folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load. Every rank must call this.

    It holds the weights (safetensors, bfloat16 if that was the arithmetic), the configurations, the full tokenizer,
    ``vocabulary.json``, ``training.json`` (what was trained, and how), ``metrics.parquet`` (one row per step) and
    ``tensorboard/``. With LoRA and ``export: adapter``, adapters of peft are in place of the weights.
    """
    lm, out = run.training.config.lm, run.training.job.out
    weights: dict[str, Any] = get_model_state_dict(
        run.lm, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if run.ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        dtype = torch.bfloat16 if run.ranks.bf16 else torch.float32
        if lm.lora is not None and lm.lora.export == "adapter":
            save_adapters(run.lm, weights, lm.lora, dtype, out)
        else:
            _save_weights(run.lm, merged(run.lm, weights), dtype, out)
        _save_tokenizer(run.training.tokenizer, run.vocabulary, out)
        _save_record(run, out)
    run.ranks.barrier()


def _save_tokenizer(folder: Path, vocabulary: Vocabulary, out: Path) -> None:
    """The full tokenizer: as it is in a model's folder, extended by the speech tokens otherwise."""
    if (folder / VOCABULARY_FILE).is_file():
        copy_files((*TOKENIZER_FILES, VOCABULARY_FILE), folder, out)
        write_model_config(out, read_json(folder / "tokenizer_config.json"))
    else:
        save_tokenizer(folder, vocabulary, out)


def _save_record(run: Run, out: Path) -> None:
    config, rows = run.training.config, run.state.rows
    record = {
        "config": config.model_dump(mode="json"),
        "vocabulary": run.vocabulary.fingerprint(),
        "vocabulary_size": run.vocabulary.size,
        "embedding_rows": run.lm.get_input_embeddings().weight.shape[0],
        "steps": run.state.step,
        "ended_early": run.ended_early,
        "tokens": rows[-1]["tokens"],
    }
    (out / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), out / "metrics.parquet")
    board = run.training.job.work / "tensorboard"
    if board.is_dir():
        shutil.copytree(board, out / "tensorboard", dirs_exist_ok=True)


def _save_weights(model: CausalLM, weights: dict[str, torch.Tensor], dtype: torch.dtype, out: Path) -> None:
    """Save through a model without FSDP and compilation, whose tensors are these weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain: CausalLM = AutoModelForCausalLM.from_config(model.config)  # type: ignore[no-untyped-call]
    plain.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(out)
