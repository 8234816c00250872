from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.quantizers.kmeans import KMeans
from spiritlm_core.speech.quantizers.quantizer import (
    LINEAR_FILE,
    LinearQuantizer,
    classifier,
    load_quantizer,
    resolve_blanks,
)

BLANK = 3


def naive(units: list[int]) -> list[int]:
    """Blanks take the unit of their left neighbour in the ring, again and again."""
    units = list(units)
    for _ in range(len(units) + 1):
        units = [units[i - 1] if unit == BLANK else unit for i, unit in enumerate(units)]
    return units


@given(st.lists(st.integers(0, BLANK), max_size=30))
def test_blanks_follow_the_rule(units: list[int]) -> None:
    assert resolve_blanks(np.array(units, np.int64), BLANK).tolist() == naive(units)


def test_blanks_at_the_start_wrap_round() -> None:
    assert resolve_blanks(np.array([3, 3, 1, 3, 2, 3]), BLANK).tolist() == [2, 2, 1, 1, 2, 2]
    assert resolve_blanks(np.array([3, 3]), BLANK).tolist() == [3, 3]


def quantizer(seed: int = 0) -> LinearQuantizer:
    rng = np.random.default_rng(seed)
    sizes = [5, 7, 6, 4]
    weights = [rng.normal(size=(b, a)).astype(np.float32) for a, b in pairwise(sizes)]
    return LinearQuantizer(
        tuple(weights), tuple(rng.normal(size=b).astype(np.float32) for b in sizes[1:]), {"layer": 2}
    )


def test_saved_and_loaded(tmp_path: Path) -> None:
    made, frames = quantizer(), np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
    made.save(tmp_path / LINEAR_FILE)
    found = load_quantizer(tmp_path)
    assert (found.layer, found.size, found.width) == (2, 4, 5)
    classes = [classifier(one, "cpu")(torch.from_numpy(frames)).numpy() for one in (found, made)]
    np.testing.assert_array_equal(*classes)
    assert len(np.unique(classes[0])) > 2


def test_a_wrong_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError, match="k-means"):
        load_quantizer(tmp_path)
    a, b, c = quantizer().weights
    LinearQuantizer((b, a, c), quantizer().biases, {"layer": 1}).save(tmp_path / LINEAR_FILE)
    with pytest.raises(ModelReferenceError, match="do not follow"):
        load_quantizer(tmp_path)
    KMeans(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), np.ones(2, np.float32), {"layer": 1}).save(
        tmp_path / "kmeans.safetensors"
    )
    with pytest.raises(ModelReferenceError, match="both"):
        load_quantizer(tmp_path)
