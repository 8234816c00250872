"""Weights that were cut short or damaged are found out by their headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.content import check_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "vocoder" / "model.safetensors"
    path.parent.mkdir()
    save_file({"a": np.zeros(99), "b": np.ones((3, 2), np.float32)}, path, {"format": "pt"})
    return path


def test_whole_files_are_taken(weights: Path) -> None:
    save_file({}, weights.parent / "none.safetensors")
    check_weights(weights.parents[1])


@pytest.mark.parametrize("left", [0, 1, 7, 8, 9, 100, 300, -1, -8])
def test_a_file_that_is_cut_short_is_named(weights: Path, left: int) -> None:
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(ModelReferenceError, match="vocoder/model.safetensors.*anew"):
        check_weights(weights.parents[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"x",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: data.replace(b"data_offsets", b"data_offsetz"),
        lambda data: data.replace(b"[0,", b'{"",'),
        lambda data: b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_damaged_header_is_named(weights: Path, change: object) -> None:
    weights.write_bytes(change(weights.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ModelReferenceError, match="vocoder/model.safetensors.*anew"):
        check_weights(weights.parents[1])
