"""Damaged checkpoints: seen, said, passed over."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spiritlm_core.errors import DamagedCheckpointError
from spiritlm_core.files import file_sha256
from spiritlm_core.fit.checkpoints import Checkpoint

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "a bit flipped at the start": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit flipped in a weight": lambda data: data.replace(torch.ones(3).numpy().tobytes(), b"\0" * 12),
    "a bit flipped at the end": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "zeros": lambda data: bytes(len(data)),
}


def spoil(path: Path, how: str) -> None:
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[how](whole))
    assert path.read_bytes() != whole


def saved(folder: Path, steps: int) -> Checkpoint:
    checkpoint = Checkpoint(folder / "new" / "fit.pt")
    for step in range(steps):
        checkpoint.save({"step": step, "weights": torch.ones(3)})
    return checkpoint


def test_the_last_two_are_kept_and_the_last_is_loaded(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "none" / "fit.pt").load() is None
    checkpoint, told = saved(tmp_path, 4), []
    assert len(list((tmp_path / "new").iterdir())) == 2
    state = checkpoint.load(told.append)
    assert state is not None
    assert state["step"] == 3
    assert told == []


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_passed_over_and_said(how: str, tmp_path: Path) -> None:
    checkpoint, told = saved(tmp_path, 3), []
    last = max((tmp_path / "new").iterdir())
    spoil(last, how)
    for _ in range(2):
        state = checkpoint.load(told.append)
        assert state is not None
        assert state["step"] == 1
    assert len(told) == 1
    assert f"{last} is damaged; going on from the one before, fit-00000002-" in told[0]
    checkpoint.save({"step": 9})
    assert checkpoint.load() == {"step": 9}


@pytest.mark.parametrize("how", DAMAGE)
def test_with_none_left_the_error_says_what_to_delete(how: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, 2)
    files = sorted((tmp_path / "new").iterdir())
    for file in files:
        spoil(file, how)
    for _ in range(2):
        with pytest.raises(DamagedCheckpointError, match="to begin from the start, delete .*fit-00000002") as caught:
            checkpoint.load()
        assert all(str(file) in str(caught.value) for file in files)
    for file in files:
        file.unlink()
    assert checkpoint.load() is None


def test_other_files_do_not_count(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, 1)
    for name in ("fit.tmp", "fit.pt", "fit-00000009-abc.pt", "other-00000009-" + "0" * 32 + ".pt"):
        (tmp_path / "new" / name).write_bytes(b"half")
    assert checkpoint.load() is not None


FULL = """
import resource, sys, torch
from pathlib import Path
from spiritlm_core.fit.checkpoints import Checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    Checkpoint(Path(sys.argv[1]) / "fit.pt").save({"weights": torch.ones(100_000)})
except OSError as error:
    print(error.strerror)
"""


def test_what_the_disk_says_is_not_hidden_by_torch(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "File too large\n", done.stderr


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["garbage", "pickle", "tensors and code", "folder", "pipe"])
def test_what_is_no_checkpoint_and_is_named_like_one_is_passed_over(kind: str, tmp_path: Path) -> None:
    checkpoint, evil, file, told = saved(tmp_path, 1), Evil(tmp_path / "made"), tmp_path / "x", []
    if kind in ("folder", "pipe"):
        (Path.mkdir if kind == "folder" else os.mkfifo)(file)
        digest = "0" * 32
    else:
        file.write_bytes(pickle.dumps(evil) if kind == "pickle" else b"garbage")
        if kind == "tensors and code":
            torch.save({"step": 9, "evil": evil}, file)
        digest = file_sha256(file)[:32]
    file.rename(tmp_path / "new" / f"fit-00000009-{digest}.pt")
    state = checkpoint.load(told.append)
    assert state is not None
    assert state["step"] == 0
    assert len(told) == 1
    assert not (tmp_path / "made").exists()
