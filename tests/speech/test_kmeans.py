from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.speech.quantizers import kmeans as module
from spiritlm_core.speech.quantizers.kmeans import KMeans, fit_kmeans


def blobs(clusters: int, each: int, size: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (
        (10 * rng.normal(size=(clusters, 1, size)) + rng.normal(size=(clusters, each, size)))
        .reshape(-1, size)
        .astype(np.float32)
    )


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_assignment_is_the_nearest_centre(frames: int, clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, centres = (rng.normal(size=(n, 4)).astype(np.float32) for n in (frames, clusters))
    mean, scale = rng.normal(size=4).astype(np.float32), np.exp(rng.normal(size=4)).astype(np.float32)
    distance = ((((x - mean) / scale)[:, None] - centres[None]) ** 2).sum(-1)
    found = KMeans(centres, mean, scale).assign(x)
    np.testing.assert_allclose(distance[np.arange(frames), found], distance.min(axis=1), rtol=1e-4, atol=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs(4, 50)
    kmeans = fit_kmeans(x, 4, seed=0)
    whole = kmeans.assign(x)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert np.array_equal(kmeans.assign(x), whole)
    assert kmeans.assign(x[:0]).shape == (0,)


def test_blobs_are_found_and_fit_is_deterministic() -> None:
    x = blobs(6, 100)
    kmeans = fit_kmeans(x, 6, seed=3, normalize=True)
    units = kmeans.assign(x).reshape(6, 100)
    assert sorted(units[:, 0]) == list(range(6))
    assert (units == units[:, :1]).mean() > 0.99
    assert np.array_equal(fit_kmeans(x, 6, seed=3, normalize=True).centres, kmeans.centres)


def test_save_and_load(tmp_path: Path) -> None:
    kmeans = fit_kmeans(blobs(3, 20), 3, seed=0, facts={"layer": 4})
    kmeans.save(tmp_path / "k.safetensors")
    loaded = KMeans.load(tmp_path / "k.safetensors")
    assert loaded.facts == {"layer": 4}
    assert np.array_equal(loaded.centres, kmeans.centres)


def test_too_few_frames_and_bad_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="30 clusters want at least as many frames"):
        fit_kmeans(blobs(2, 10), 30, seed=0)
    (tmp_path / "bad").write_bytes(b"not a safetensors file")
    for name in ("bad", "missing"):
        with pytest.raises(ModelReferenceError, match=name):
            KMeans.load(tmp_path / name)
