"""Checkpoints of a training run that are damaged, or were made to do harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save

from spiritlm_core.errors import CheckpointError, DamagedCheckpointError
from spiritlm_core.fit.checkpoint_files import damage, read_record, write_state
from spiritlm_core.fit.job import FitJob
from tests.lm.training import assert_same_weights, losses, run
from tests.support.small_model import tiny_config


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["state.json", ".metadata", "__0_0.distcp", "random-0.pt", "metrics.parquet"])
@pytest.mark.parametrize("spoil", [cut, flipped])
def test_training_goes_on_from_the_checkpoint_before(job: FitJob, name: str, spoil: Callable[[bytes], bytes]) -> None:
    run(job)
    folder, told = job.work / "checkpoints", []
    file = folder / "step-00000012" / name
    file.write_bytes(spoil(file.read_bytes()))
    again = replace(job, out=job.out.parent / "again")
    again.run(lambda _, message: told.append(message))
    notes = [message for message in told if message.startswith("note:")]
    assert len(notes) == 1
    assert "step-00000012 is damaged; going on from the one before, step-00000008" in notes[0]
    assert losses(again.out) == losses(job.out)
    assert_same_weights(again.out, job.out)


def test_with_no_whole_checkpoint_the_error_says_what_to_delete(job: FitJob) -> None:
    run(job)
    for shard in (job.work / "checkpoints").glob("*/*.distcp"):
        shard.write_bytes(flipped(shard.read_bytes()))
    with pytest.raises(DamagedCheckpointError, match="delete .*step-00000012 .*step-00000008"):
        run(job)


def test_a_damaged_best_checkpoint_is_said_before_training_goes_on(job: FitJob) -> None:
    best = replace(job, config=tiny_config(export="best", validate_every=4))
    run(best)
    folder = job.work / "checkpoints"
    for shard in (folder / "step-00000012").glob("*.distcp"):
        shard.write_bytes(flipped(shard.read_bytes()))
    with pytest.raises(CheckpointError, match="step-00000012: cannot be loaded, __0_0.distcp is damaged"):
        run(replace(best, resume_from=folder / "step-00000012"))


@pytest.mark.parametrize("place", [".metadata", "plain value"])
def test_a_checkpoint_cannot_run_code(job: FitJob, place: str, tmp_path: Path) -> None:
    """Its digests are right: whoever made it made these, too."""
    run(job)
    made, evil = job.work / "checkpoints" / "step-00000012", tmp_path / "harm"
    if place == ".metadata":
        (made / place).write_bytes(pickle.dumps(Evil(evil)))
    else:
        _replace_plain_value(made / "__0_0.distcp", made, Evil(evil))
    write_state(made, read_record(made)[0])
    with pytest.raises(CheckpointError, match="step-00000012: cannot be loaded into this model"):
        run(job)
    assert not evil.exists()
    pickle.loads((made / ".metadata").read_bytes())  # what would have happened
    assert evil.exists() == (place == ".metadata")


def _replace_plain_value(shard: Path, made: Path, value: object) -> None:
    """Put a pickle behind the shard's content, and let the metadata point to it for the learning rate."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    metadata = pickle.loads((made / ".metadata").read_bytes())
    info = next(place for index, place in metadata.storage_data.items() if index.fqn.endswith(".lr"))
    info.offset, info.length = shard.stat().st_size, len(buffer.getvalue())
    with shard.open("ab") as file:
        file.write(buffer.getvalue())
    (made / ".metadata").write_bytes(pickle.dumps(metadata))


def test_the_readers_take_what_torch_writes(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.state_dict_loader import load

    from spiritlm_core.fit.checkpoint_files import Planner, Reader

    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
    state: dict[str, Any] = {str(kind): torch.ones(2, 3).to(kind) for kind in kinds}
    state |= {"plain": {"lr": 0.5, "betas": (0.9, 0.95), "none": None, "text": "x", "flags": [True, 3]}}
    save(state, checkpoint_id=str(tmp_path / "one"))
    empty: dict[str, Any] = {str(kind): torch.zeros(2, 3).to(kind) for kind in kinds}
    empty["plain"] = {"lr": 0.0, "betas": (0.0, 0.0), "none": 1, "text": "", "flags": [False, 0]}
    load(empty, storage_reader=Reader(tmp_path / "one"), planner=Planner())
    assert all(torch.equal(empty[str(kind)], state[str(kind)]) for kind in kinds)
    assert empty["plain"]["lr"] == 0.5


@pytest.mark.parametrize(
    "files", [[1], 5, None, {"../x": "a"}, {"a\0": "a"}, {"\ud800": "a"}, {"pipe": "a"}, {"x": 5}], ids=range(8)
)
def test_files_of_a_checkpoint_that_are_none_are_damage(tmp_path: Path, files: Any) -> None:
    write_state(tmp_path, {"step": 1})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x").touch()
    (tmp_path / "state.json").write_text(json.dumps({"step": 1, "files": files}))
    assert str(tmp_path) in str(damage(tmp_path))
    (tmp_path / "state.json").write_text("[" * 100_000)
    assert "not a complete checkpoint" in str(damage(tmp_path))


def test_a_copy_of_a_checkpoint_beside_it_is_none(job: FitJob) -> None:
    run(job)
    folder = job.work / "checkpoints"
    for name in ("step-00000012.bak", "step-old"):
        shutil.copytree(folder / "step-00000008", folder / name)
    told: list[str] = []
    replace(job, out=job.out.parent / "again").run(lambda _, message: told.append(message))
    assert_same_weights(job.out.parent / "again", job.out)
    assert {path.name for path in folder.iterdir()} >= {"step-00000012", "step-00000012.bak", "step-old"}


def test_a_process_that_dies_while_a_checkpoint_is_written_is_no_fault_of_it(job: FitJob, monkeypatch) -> None:
    """So that the training is started again; what gloo says of it was seen when a node was killed."""

    def alone(*_: object, **__: object) -> None:
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer")

    monkeypatch.setattr("spiritlm_core.lm.train.checkpoint.save", alone)
    with pytest.raises(ConnectionError, match="another process of the training is gone"):
        run(job)
