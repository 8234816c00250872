from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.config import StyleConfig
from spiritlm_core.speech.grid import style_count, unit_count
from spiritlm_core.speech.pitch.f0 import Melody
from spiritlm_core.speech.style.coder import PROSODY, StyleModel, estimated_mean, fit_style, second_vectors
from tests.speech.synthetic import vowel

SIZE = 4


def vectors(waveform: np.ndarray, f0: float | None = None) -> np.ndarray:
    layer = np.random.default_rng(0).normal(size=(unit_count(len(waveform)), SIZE)).astype(np.float32)
    frames = len(waveform) // 160 + 1
    track = Melody(np.full(frames, f0 or 0, np.float32), np.full(frames, f0 is not None))
    return second_vectors(waveform, layer, track)


@pytest.mark.parametrize("samples", [1280, 1599, 15_999, 16_000, 16_001, 16_399, 47_000])
def test_one_vector_per_second_begun(samples: int) -> None:
    found = vectors(vowel(3.0, 150, 150, (500, 1500))[:samples], 150.0)
    assert found.shape == (style_count(samples), len(PROSODY) + 2 * SIZE)
    assert np.isfinite(found).all()


def test_prosody_means_what_it_says() -> None:
    waveform = vowel(1.0, 400, 400, (500, 1500))
    named = dict(zip(PROSODY, vectors(waveform, 400.0)[0], strict=False))
    quiet = dict(zip(PROSODY, vectors(0.1 * waveform, 400.0)[0], strict=False))
    assert named["f0"] == pytest.approx(1.0)
    assert named["f0_deviation"] == pytest.approx(0.0, abs=1e-5)
    assert named["voiced"] == 1.0
    assert named["energy"] > quiet["energy"]
    assert np.isnan(dict(zip(PROSODY, vectors(waveform)[0], strict=False))["f0"])


def fitted(offset: float) -> tuple[StyleModel, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(10, len(PROSODY) + 2 * SIZE)).astype(np.float32) for _ in range(4)]
    clips = [clip + offset * (i % 2) for i, clip in enumerate(clips)]
    clips[0][0, PROSODY.index("f0")] = np.nan
    config = StyleConfig(layer=1, clusters=3, components=2, restarts=2, seed=0)
    return fit_style(clips, ["a", "b", "a", "b"], config), clips


def test_speaker_mean_is_removed() -> None:
    model, clips = fitted(0.0)
    moved, far = fitted(8.0)
    np.testing.assert_allclose(
        moved.project(far[1], "b"), model.project(clips[1], "b") * 1.0, atol=0.05 * np.abs(far[1]).max()
    )
    assert np.isfinite(moved.project(far[0], "a")).all()
    unknown = moved.project(far[1], "nobody")
    np.testing.assert_array_equal(unknown, moved.project(far[1], None))


def test_an_unknown_speaker_is_estimated_from_the_piece() -> None:
    """Of ten seconds two twelfths of the distance to everybody are left, of one second two thirds."""
    everybody, piece = np.zeros(3, np.float32), np.full((10, 3), 6.0, np.float32)
    piece[0, 2] = np.nan
    assert estimated_mean(piece, everybody) == pytest.approx(5.0)
    assert estimated_mean(piece[1:2], everybody) == pytest.approx(2.0)
    unvoiced = np.full((1, 3), np.nan, np.float32)
    assert estimated_mean(unvoiced, everybody + 1) == pytest.approx(1.0)
    model, clips = fitted(0.0)
    moved = [np.abs(model.project(clips[1] + offset, None)).mean() for offset in (0.0, 8.0)]
    known = np.abs(model.flat(clips[1] + 8.0 - model.means[0])).mean()
    assert moved[1] < 0.5 * known


def test_save_and_load(tmp_path: Path) -> None:
    model, clips = fitted(1.0)
    model.save(tmp_path)
    loaded = StyleModel.load(tmp_path)
    assert np.array_equal(loaded.encode(clips[0], "a"), model.encode(clips[0], "a"))
    assert loaded.encode(clips[0], "a").dtype == np.int8
    with pytest.raises(ModelReferenceError, match="style model"):
        StyleModel.load(tmp_path / "missing")
