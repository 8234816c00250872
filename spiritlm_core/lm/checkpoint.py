"""Checkpoints of a training run: model, optimiser, data position, random state and metrics, all or nothing.

One checkpoint is a folder ``step-00000100`` written by ``torch.distributed.checkpoint`` (each rank its shards, any
number of ranks may read them). ``state.json`` is written last and atomically: a folder without it does not count.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from spiritlm_core.lm.errors import CheckpointError
from spiritlm_core.lm.model import CausalLM
from spiritlm_core.lm.parallel import World

_STATE = "state.json"


@dataclass
class RunState:
    """What a run must remember besides tensors."""

    vocabulary: str  # Vocabulary.fingerprint()
    step: int = 0
    tokens: int = 0  # tokens trained on
    seconds: float = 0.0
    data: dict[str, Any] | None = None  # position in the stream of packed sequences
    rows: list[dict[str, Any]] = field(default_factory=list)  # metrics


class Checkpoints:
    """The checkpoints of one run, below one folder; keeps the last few."""

    def __init__(self, folder: Path, world: World, keep: int) -> None:
        self.folder = folder
        self.world = world
        self.keep = keep

    def latest(self) -> Path | None:
        """The complete checkpoint with the highest step, if any."""
        complete = self._complete()
        return complete[-1] if complete else None

    def _complete(self) -> list[Path]:
        return sorted(state.parent for state in self.folder.glob(f"step-*/{_STATE}"))

    def save(self, model: CausalLM, optimizer: torch.optim.Optimizer, state: RunState) -> Path:
        """Write a checkpoint; every rank must call this. Older ones beyond `keep` are deleted afterwards."""
        path = self.folder / f"step-{state.step:08d}"
        if self.world.first:
            shutil.rmtree(path, ignore_errors=True)  # a killed attempt may have left half of it
            path.mkdir(parents=True)
        self.world.barrier()
        save(_tensors(model, optimizer), checkpoint_id=str(path))
        torch.save(_random_state(), path / f"random-{self.world.rank}.pt")
        self.world.barrier()
        if self.world.first:
            self._complete_with(path, state)
        return path

    def _complete_with(self, path: Path, state: RunState) -> None:
        record = asdict(state)
        rows = record.pop("rows")
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), path / "metrics.parquet")
        part = path / f"{_STATE}.part"
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(path / _STATE)
        for old in self._complete()[: -self.keep]:
            (old / _STATE).unlink()  # first the mark, so that a kill leaves no half checkpoint that counts
            shutil.rmtree(old, ignore_errors=True)

    def restore(self, path: Path, model: CausalLM, optimizer: torch.optim.Optimizer, vocabulary: str) -> RunState:
        """Load `path` into model, optimiser and random state; returns the rest.

        Raises:
            CheckpointError: incomplete or damaged, for another model shape, or for another vocabulary.
        """
        state = read_state(path)
        if state.vocabulary != vocabulary:
            raise CheckpointError(
                f"{path}: was trained with vocabulary {state.vocabulary[:12]}, this run has {vocabulary[:12]}"
            )
        tensors = _tensors(model, optimizer)
        try:
            load(tensors, checkpoint_id=str(path))
        except (Exception, CheckpointException) as error:  # the latter is a bare BaseException
            raise CheckpointError(f"{path}: cannot be loaded into this model: {_last_line(error)}") from error
        set_state_dict(model, optimizer, model_state_dict=tensors["model"], optim_state_dict=tensors["optimizer"])
        random = path / f"random-{self.world.rank}.pt"
        if random.exists():  # absent when the number of ranks has grown
            _set_random_state(torch.load(random, weights_only=True))
        return state


def read_state(path: Path) -> RunState:
    """The part of a checkpoint that is not tensors.

    Raises:
        CheckpointError: `path` is not a complete checkpoint.
    """
    try:
        record = json.loads((path / _STATE).read_text(encoding="utf-8"))
        metrics = path / "metrics.parquet"
        rows = pq.read_table(metrics).to_pylist() if metrics.exists() else []
        return RunState(**record, rows=rows)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise CheckpointError(f"{path}: not a complete checkpoint: {error}") from error


def _tensors(model: CausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _last_line(error: BaseException) -> str:
    """DCP puts whole tracebacks into its messages; their last line says what is wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
