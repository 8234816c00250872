"""Directions of features in which parts of words differ."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import RecipeError
from spiritlm_core.fit.clips import Clip
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.quantizers.discriminant import discriminant, word_parts
from spiritlm_core.speech.quantizers.kmeans import KMeans, fit_kmeans

PARTS = 6


def heard(seed: int, speaker: float) -> tuple[np.ndarray, np.ndarray]:
    """Features [600, 12] of six parts of words, told apart in three dimensions; a voice moves all the others more."""
    rng = np.random.default_rng(seed)
    means = 4 * np.array(list(product((-1, 1), repeat=3)))
    parts = rng.integers(PARTS, size=600)
    features = rng.normal(size=(600, 12))
    features[:, :3] += means[parts]
    features[:, 3:] = 8 * features[:, 3:] + speaker
    return features.astype(np.float32), parts


def purity(kmeans: KMeans, features: np.ndarray, parts: np.ndarray) -> float:
    units = kmeans.assign(features)
    return float(sum(np.bincount(parts[units == unit]).max() for unit in np.unique(units)) / len(parts))


def test_units_tell_what_is_said_and_not_who_says_it() -> None:
    voices = [heard(number, 20.0 * number) for number in range(4)]
    features, parts = (np.concatenate(column) for column in zip(*voices, strict=True))
    taught = fit_kmeans(features, 12, seed=0, project=lambda seen: discriminant(seen, parts, 3))
    plain = fit_kmeans(features, 12, seed=0)
    unheard = heard(9, 50.0)
    assert purity(taught, *unheard) > 0.9
    assert purity(plain, *unheard) < 0.6


def test_frames_between_words_do_not_count() -> None:
    features, parts = heard(0, 0.0)
    noise = np.full((50, 12), 1e3, np.float32)
    with_noise = discriminant(np.concatenate([features, noise]), np.concatenate([parts, np.full(50, -1)]), 3)
    np.testing.assert_allclose(with_noise, discriminant(features, parts, 3), rtol=1e-4, atol=1e-5)


def test_impossible_directions() -> None:
    features, parts = heard(0, 0.0)
    with pytest.raises(RecipeError, match="directions is 13, but the encoder's features are only 12"):
        discriminant(features, parts, 13)
    with pytest.raises(RecipeError, match="give transcripts"):
        discriminant(features, np.full(600, -1), 3)


@given(st.integers(0, 20))
@settings(max_examples=10, deadline=None)
def test_a_projected_quantizer_is_kept_and_is_one_affine_map(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    centres, projection = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(12, 3)).astype(np.float32)
    mean, scale = rng.normal(size=12).astype(np.float32), np.exp(rng.normal(size=12)).astype(np.float32)
    path: Path = tmp_path_factory.mktemp("quantizer") / "kmeans.safetensors"
    KMeans(centres, mean, scale, {"layer": 1}, projection).save(path)
    loaded, frames = KMeans.load(path), rng.normal(size=(40, 12)).astype(np.float32)
    distances = ((((frames - mean) / scale) @ projection)[:, None] - centres) ** 2
    assert loaded.width == 12
    assert np.array_equal(loaded.assign(frames), distances.sum(-1).argmin(axis=1))
    ((weight, bias),) = loaded.affine_maps()
    assert np.array_equal((frames @ weight.T + bias).argmax(axis=1), loaded.assign(frames))


def test_parts_of_words_lie_where_the_words_do() -> None:
    def word(text: str, start: float, end: float, *, interpolated: bool = False) -> dict[str, object]:
        return {"word": text, "start": start, "end": end, "score": 1.0, "interpolated": interpolated}

    rows = [
        {"utterance_id": "a", "words": [word("One,", 0.0, 0.4), word("two", 0.4, 0.6, interpolated=True)]},
        {"utterance_id": "b", "words": [word("one", 0.04, 0.44)]},
        {"utterance_id": "not asked for", "words": None},
    ]
    clips = [Clip(name, None, None, None, np.zeros(16_000, np.float32)) for name in ("b", "a", "without words")]
    parts = word_parts(clips, TableView.of(pa.Table.from_pylist(rows)), 640).reshape(3, -1)
    assert parts[0].tolist() == [-1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, *[-1] * 13]
    assert parts[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, *[-1] * 14]
    assert (parts[2] == -1).all()
