"""One optimiser step over the tokens of all ranks, a look at held-out sequences, and what both are reported as."""

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from spiritlm_core.errors import TrainingError
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.data import Batch, Step, batches
from spiritlm_core.lm.train.optimizer import (
    clip_gradients,
    keep_new_rows,
    optimise,
    set_learning_rate,
    set_weight_decay,
)
from spiritlm_core.lm.train.run import Run
from spiritlm_core.tokens.corpus import STREAMS, shown_streams


@dataclass(frozen=True)
class StepLosses:
    """Loss of one step over all ranks, in nats."""

    sums: torch.Tensor  # float64[len(STREAMS)]
    counts: torch.Tensor  # int64[len(STREAMS)]

    @property
    def mean(self) -> float:
        """Mean over all predicted tokens."""
        return float(self.sums.sum() / self.counts.sum())

    def per_stream(self, name: str, streams: Sequence[str]) -> dict[str, float | None]:
        """``{name}_text`` … of some streams; None for one without a token in this step."""
        sums, counts = (dict(zip(STREAMS, values.tolist(), strict=True)) for values in (self.sums, self.counts))
        return {f"{name}_{s}": sums[s] / counts[s] if counts[s] else None for s in streams}


@dataclass(frozen=True)
class Outcome:
    """What a step did, the same on every rank."""

    losses: StepLosses  # per stream
    tokens: int  # trained on, padding not counted
    pairs: int  # of a query and a key that attention looked at
    gradient_norm: float  # before clipping
    stop: bool  # whether a rank was asked to stop


def optimizer_step(run: Run, step: Step, rate: float, *, asked_to_stop: bool) -> Outcome:
    """Update the weights once. Raises TrainingError: the loss or the gradient is not finite; nothing was updated."""
    pairs = sum(part.documents.pairs for part in step.parts)
    counts = run.ranks.sum(torch.cat([step.counts(), torch.tensor([pairs, int(asked_to_stop)])]).to(run.ranks.device))
    *streams, tokens, pairs, stops = counts.tolist()
    sums = run.ranks.sum(_backward(run, step, predicted=run.objective.weighted(streams)))
    _restrict(run)
    optimizer = run.training.config.lm.optimizer
    norm = clip_gradients(run.objective, optimizer.clip_norm)
    losses = StepLosses(sums.cpu(), torch.tensor(streams))
    _check_finite(run, losses.mean, norm)
    set_learning_rate(run.optimizer, rate, optimizer)
    optimise(run.optimizer, run.lm, run.vocabulary.text_size, optimizer)
    run.optimizer.zero_grad(set_to_none=True)
    return Outcome(losses, tokens, pairs, norm, stops > 0)


def _backward(run: Run, step: Step, predicted: float) -> torch.Tensor:
    """Accumulate the gradient of the mean loss over the `predicted` tokens of all ranks, weighted by stream.

    With w the weight of a target's stream, what is minimised is ``sum(w * nats) / sum(w)`` over all targets of a step.
    Returns float64[len(STREAMS)], this rank's nats, without weights.
    """
    sums = torch.zeros(len(STREAMS), dtype=torch.float64, device=run.ranks.device)
    for index, cpu_part in enumerate(step.parts):
        part = cpu_part.to(run.ranks.device)
        if run.ranks.size > 1:
            run.objective.set_requires_gradient_sync(index == len(step.parts) - 1)  # type: ignore[operator]
        with run.ranks.arithmetic():
            loss, nats = run.objective(part, 1.0 / (predicted or 1.0))
        torch.autograd.backward(loss)
        sums += stream_sums(nats, part)
    return sums


def stream_sums(nats: torch.Tensor, batch: Batch) -> torch.Tensor:
    """float64[len(STREAMS)]: nats, float[P], summed over the targets of each stream."""
    sums = torch.zeros(len(STREAMS), dtype=torch.float64, device=nats.device)
    return sums.index_add_(0, batch.streams, nats.double())


def _restrict(run: Run) -> None:
    """In the first phase train the rows of new tokens alone, if the run has such a phase."""
    if not run.training.config.lm.new_tokens_first:
        return
    set_weight_decay(run.optimizer, run.training.config.lm.optimizer.weight_decay)
    if run.state.step < run.training.config.lm.new_tokens_first:
        keep_new_rows(run.lm, run.vocabulary.text_size, run.optimizer)


def _check_finite(run: Run, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    run.checkpoints.finish()
    last = run.checkpoints.latest()
    raise TrainingError(
        f"step {run.state.step + 1}: loss {loss}, gradient norm {norm}: training diverged. Lower "
        f"lm.optimizer.learning_rate or raise warmup_steps; the last good checkpoint is {last or 'not written yet'}"
    )


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


_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}
"""Dense bfloat16 peak of one device, from the vendor's data sheets."""


class Metrics:
    """One row a step for ``metrics.parquet``, and the same for TensorBoard."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._streams = shown_streams(run.training.config.tokens.shares)
        self._model = ModelFlops.of(run.lm)
        self._peak = peak_flops(run.ranks.device)
        self._board: Any = None

    def __enter__(self) -> Self:
        if self._run.ranks.first:
            from torch.utils.tensorboard import SummaryWriter

            folder = self._run.training.job.work / "tensorboard"
            self._board = SummaryWriter(str(folder), purge_step=self._run.state.step + 1)  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def record(self, outcome: Outcome, rate: float, *, seconds: float, waited: float) -> None:
        """Enter a step into the run's state; `waited` of its `seconds` went by before its data was there."""
        state, losses = self._run.state, outcome.losses
        state.step += 1
        state.tokens += outcome.tokens
        state.seconds += seconds
        flops = self._model.of_step(outcome.tokens, outcome.pairs)
        row = {
            "step": state.step,
            "tokens": state.tokens,
            "loss": losses.mean,
            **losses.per_stream("loss", self._streams),
            "validation_loss": None,
            **{f"validation_{stream}": None for stream in self._streams},
            "learning_rate": rate,
            "gradient_norm": outcome.gradient_norm,
            "seconds": seconds,
            "data_wait": waited,
            "tokens_per_second": outcome.tokens / max(seconds, 1e-9),
            "mfu": flops / max(seconds, 1e-9) / (self._peak * self._run.ranks.size) if self._peak else None,
            "memory": memory(self._run.ranks.device),
        }
        state.rows.append(row)
        self._show(row)

    def record_validation(self, losses: StepLosses) -> None:
        """Enter held-out losses into the row of the last step."""
        row = {"validation_loss": losses.mean, **losses.per_stream("validation", self._streams)}
        self._run.state.rows[-1].update(row)
        self._show({"step": self._run.state.step, **row})

    def _show(self, row: Mapping[str, Any]) -> None:
        if self._board is not None:
            for name in row.keys() - {"step"}:
                if row[name] is not None:
                    self._board.add_scalar(_tag(name), row[name], row["step"])


def _tag(name: str) -> str:
    """``loss_text`` is a curve of the group ``loss``."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest or 'all'}" if group in ("loss", "validation") else f"run/{name}"


@dataclass(frozen=True)
class ModelFlops:
    """Arithmetic that a model needs: 6 per weight and token, 12 per layer, unit of width and pair in attention.

    As arXiv 2204.02311, appendix B, but attention counts as far as documents and causality demand it, not for a
    full square. The input embedding is a look-up and counts nothing unless it is the output layer as well.
    """

    weights: int
    pair: int

    @classmethod
    def of(cls, lm: CausalLM) -> Self:
        """Of a model of transformers."""
        tables = [layer.weight for layer in (lm.get_input_embeddings(), lm.get_output_embeddings())]
        looked_up = 0 if tables[0] is tables[1] else tables[0].numel()
        weights = sum(parameter.numel() for parameter in lm.parameters()) - looked_up
        return cls(weights, 12 * lm.config.num_hidden_layers * lm.config.hidden_size)

    def of_step(self, tokens: int, pairs: int) -> float:
        """Floating-point operations, forward and backward."""
        return 6.0 * self.weights * tokens + float(self.pair) * pairs


def peak_flops(device: torch.device) -> float | None:
    """Peak of `device` in bfloat16, None where we do not know it."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_FLOPS.items() if key in name), None)


def memory(device: torch.device) -> int:
    """Most bytes used so far: of the GPU's memory, or of this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
