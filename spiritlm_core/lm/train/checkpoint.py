"""Checkpoints of a training run: model, optimiser, data position, random state and metrics, all or nothing.

One checkpoint is a folder ``step-00000100`` written by ``torch.distributed.checkpoint`` (each rank its shards, any
number of ranks may read them). ``state.json`` is written last and atomically: a folder without it does not count.
"""

import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from spiritlm_core.errors import CheckpointError
from spiritlm_core.fit.checkpoint_files import STATE, Planner, Reader, damage, read_record, write_state
from spiritlm_core.fit.checkpoints import Tell, go_on_from
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lm.config import LmCompute
from spiritlm_core.lm.model.network import CausalLM


@dataclass
class RunState:
    """What a run must remember besides tensors."""

    vocabulary: str  # Vocabulary.fingerprint()
    corpus: str  # Source.fingerprint()
    step: int = 0
    tokens: int = 0  # tokens trained on
    seconds: float = 0.0
    data: dict[str, Any] | None = None  # position in the stream of packed sequences
    best_step: int | None = None  # the step with the lowest held-out loss
    best_loss: float | None = None
    looks_since_best: int = 0  # at the held-out loss
    rows: list[dict[str, Any]] = field(default_factory=list)  # metrics


class Checkpoints:
    """The checkpoints of one run, below one folder; keeps the last few and the best."""

    def __init__(self, folder: Path, ranks: Ranks, compute: LmCompute) -> None:
        """Every rank must call this."""
        self.folder = folder
        self.ranks = ranks
        self.keep = compute.keep_checkpoints
        wanted = compute.async_checkpoints
        self._asynchronous = ranks.device.type == "cuda" if wanted is None else wanted
        # collectives of the writing thread must not meet those of the training loop
        self._group = ranks.cpu_group() if self._asynchronous else None
        self._writing: tuple[Path, Future[Any]] | None = None
        self._marker = ThreadPoolExecutor(1, "checkpoint")

    def latest(self) -> Path | None:
        """The complete checkpoint with the highest step, if any."""
        complete = self._complete()
        return complete[-1] if complete else None

    def usable(self, tell: Tell) -> Path | None:
        """The last complete checkpoint whose files are whole, if any; every rank must call this.

        Later ones, which are damaged, no longer count, and `tell` is told so.

        Raises DamagedCheckpointError: all are damaged.
        """
        complete = self._complete()[::-1]
        whole = self._first_whole(complete)
        go_on_from(whole, complete, lambda path: (path / STATE).rename(path / f"{STATE}.damaged"), tell)
        return whole

    def check(self, path: Path) -> None:
        """Make sure that the files of `path` are whole; every rank must call this. Raises CheckpointError."""
        if self._first_whole([path]) is None:
            raise CheckpointError(damage(path) or f"{path} is damaged")

    def _first_whole(self, paths: list[Path]) -> Path | None:
        """As the first rank sees it, whose disk may be another's too."""
        index = 0
        if self.ranks.first:
            index = next((i for i, path in enumerate(paths) if damage(path) is None), -1)
        index = int(self.ranks.sum(torch.tensor(index, device=self.ranks.device)))
        return paths[index] if index >= 0 else None

    def at(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self.folder / f"step-{step:08d}"

    def _complete(self) -> list[Path]:
        folders = (state.parent for state in self.folder.glob(f"step-*/{STATE}"))
        return sorted(folder for folder in folders if re.fullmatch(r"step-\d{8,}", folder.name))  # and no copy of one

    def save(self, lm: CausalLM, optimizer: torch.optim.Optimizer, state: RunState) -> Path:
        """Write a checkpoint; every rank must call this. Older ones beyond `keep` are deleted afterwards.

        With asynchronous checkpoints the tensors are copied at once and written while training goes on.

        Raises CheckpointError: it cannot be written, or the one before could not; earlier ones are as they were.
        """
        self.finish()
        path = self.at(state.step)
        with self._failing(path):
            self._prepare(path, state)
            tensors, record = _tensors(lm, optimizer), _record(state)
            if not self._asynchronous:
                save(tensors, checkpoint_id=str(path))
                self._mark(path, record)
            else:
                saved: Any = async_save(tensors, checkpoint_id=str(path), process_group=self._group)
                written = getattr(saved, "upload_completion", saved)  # of later versions of torch
                self._writing = path, self._marker.submit(self._mark_written, written, path, record)
        return path

    def finish(self) -> None:
        """Wait for a checkpoint that is being written. Raises CheckpointError if that failed."""
        if self._writing is None:
            return
        (path, future), self._writing = self._writing, None
        with self._failing(path):
            future.result()

    @contextmanager
    def _failing(self, path: Path) -> Iterator[None]:
        try:
            with _quiet():
                yield
        except (Exception, CheckpointException) as error:  # the latter is a bare BaseException
            free = shutil.disk_usage(self.folder).free / 1e6
            shutil.rmtree(path, ignore_errors=True)  # on a full disk, half of it is in the way
            _check_peers(error)
            raise CheckpointError(
                f"{path}: the checkpoint cannot be written: {_last_line(error)} ({free:,.1f} MB are free there). Free "
                "some space, or name another folder, and start again; the last good checkpoint is "
                f"{self.latest() or 'not written yet'}"
            ) from error

    def _prepare(self, path: Path, state: RunState) -> None:
        """All but the tensors and the mark."""
        if self.ranks.first:
            shutil.rmtree(path, ignore_errors=True)  # a killed attempt may have left half of it
            path.mkdir(parents=True)
        self.ranks.barrier()
        torch.save(_random_state(), path / f"random-{self.ranks.rank}.pt")
        if self.ranks.first and state.rows:
            pq.write_table(pa.Table.from_pylist(state.rows), path / "metrics.parquet")
        self.ranks.barrier()

    def _mark_written(self, written: Future[Any], path: Path, record: dict[str, Any]) -> None:
        written.result()
        self._mark(path, record)

    def _mark(self, path: Path, record: dict[str, Any]) -> None:
        """Declare a checkpoint complete, and delete those that are no longer kept."""
        if not self.ranks.first:
            return
        write_state(path, record)
        best = None if record["best_step"] is None else self.at(record["best_step"])
        for old in self._complete()[: -self.keep]:
            if old != best:
                (old / STATE).unlink()  # first the mark, so that a kill leaves no half checkpoint that counts
                shutil.rmtree(old, ignore_errors=True)

    def restore(self, path: Path, lm: CausalLM, optimizer: torch.optim.Optimizer, expected: RunState) -> RunState:
        """Load `path` into model, optimiser and random state; returns the rest.

        Raises CheckpointError: incomplete or damaged, for another model shape, another vocabulary or another corpus.
        """
        state = read_state(path)
        _check(path, state, expected)
        tensors = _tensors(lm, optimizer)
        _load(tensors, path)
        set_state_dict(lm, optimizer, model_state_dict=tensors["model"], optim_state_dict=tensors["optimizer"])
        random = path / f"random-{self.ranks.rank}.pt"
        if random.exists():  # absent when the number of ranks has grown
            _set_random_state(torch.load(random, weights_only=True))
        return state

    def restore_weights(self, path: Path, lm: CausalLM) -> None:
        """Load the weights of `path` alone. Raises CheckpointError."""
        weights = {"model": get_model_state_dict(lm)}
        _load(weights, path)
        set_model_state_dict(lm, weights["model"])


def _load(tensors: dict[str, Any], path: Path) -> None:
    """Fill `tensors` from a checkpoint. What the optimiser had never moved, as in a first phase, has no state there."""
    try:
        with _quiet():
            stored = Reader(path).read_metadata().state_dict_metadata
            moments = tensors.get("optimizer", {}).get("state", {})
            unmoved = [name for name in moments if f"optimizer.state.{name}.step" not in stored]
            for name in unmoved:
                del moments[name]
            load(tensors, storage_reader=Reader(path), planner=Planner())
            moments.update({name: {} for name in unmoved})
    except (Exception, CheckpointException) as error:  # the latter is a bare BaseException
        _check_peers(error)
        raise CheckpointError(f"{path}: cannot be loaded into this model: {_last_line(error)}") from error


def _check_peers(error: BaseException) -> None:
    """Raise ConnectionError where another process died meanwhile: no fault of a checkpoint, and tried again."""
    if any(words in str(error) for words in ("gloo/transport", "closed by peer", "reset by peer", "NCCL")):
        raise ConnectionError(f"another process of the training is gone: {_last_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks that there is one process, and on a class of its own that it still uses."""
    with warnings.catch_warnings():
        for remark in ("torch.distributed is disabled", "TypedStorage is deprecated"):
            warnings.filterwarnings("ignore", message=remark)
        yield


def _check(path: Path, state: RunState, expected: RunState) -> None:
    if state.vocabulary != expected.vocabulary:
        raise CheckpointError(
            f"{path}: was trained with vocabulary {state.vocabulary[:12]}, this run has {expected.vocabulary[:12]}"
        )
    if state.corpus != expected.corpus:
        raise CheckpointError(
            f"{path}: its place in the data is one in corpus {state.corpus[:12]}, this run reads "
            f"{expected.corpus[:12]}. To train its weights on other data, name the model it became in lm.base"
        )


def _record(state: RunState) -> dict[str, Any]:
    record = asdict(state)
    del record["rows"]
    return record


def read_state(path: Path) -> RunState:
    """The part of a checkpoint that is not tensors. Raises CheckpointError: `path` is not a complete checkpoint."""
    try:
        record, _ = read_record(path)
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
