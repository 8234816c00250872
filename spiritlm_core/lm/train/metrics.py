"""What one training step is reported as, and how much arithmetic it took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.run import Run
from spiritlm_core.lm.train.step import Outcome, StepLosses
from spiritlm_core.tokens.corpus import shown_streams

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

            folder = self._run.training.work / "tensorboard"
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
