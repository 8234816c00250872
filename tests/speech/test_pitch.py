from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.fit import steps
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.fits import PitchFit
from spiritlm_core.speech.grid import pitch_count
from spiritlm_core.speech.pitch.coder import PitchCoder, contour
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchConfig
from spiritlm_core.speech.pitch.f0 import Melody, fill, melody
from tests.speech.models import CONFIG
from tests.speech.synthetic import row, table, vowel

SAMPLES = 24_000
RELATIVE, ABSOLUTE = (PitchArchitecture.fitted(PitchConfig(normalize=one)) for one in (True, False))


class KilledError(Exception):
    pass


def test_f0_of_a_glide(capfd: pytest.CaptureFixture[str]) -> None:
    track = melody(vowel(1.5, 120, 240, (700, 1200)))
    assert len(track.f0) == SAMPLES // 160 + 1
    inner = slice(10, -10)
    assert track.voiced[inner].mean() > 0.95
    cents = 1200 * np.log2(track.f0 / np.linspace(120, 240, len(track.f0)))[inner]
    assert np.median(np.abs(cents)) < 30
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_silence_is_a_melody_of_zeros(level: float) -> None:
    waveform = np.random.default_rng(0).normal(0, level, SAMPLES).astype(np.float32)
    track = melody(waveform)
    assert not track.voiced.any()
    assert not contour(track, SAMPLES, RELATIVE).any()
    assert not contour(track, SAMPLES, ABSOLUTE).any()


@given(st.lists(st.one_of(st.just(0.0), st.floats(50, 1500)), min_size=1, max_size=60))
def test_fill_keeps_voiced_frames_and_stays_between_neighbours(values: list[float]) -> None:
    f0 = np.array(values, np.float32)
    voiced = f0 >= 50
    filled = fill(f0, voiced)
    assert len(filled) == len(f0)
    np.testing.assert_allclose(filled[voiced], np.minimum(f0[voiced], 1100), rtol=1e-6)
    if voiced.any():
        known = np.minimum(f0[voiced], 1100)
        assert known.min() * 0.999 <= filled.min() <= filled.max() <= known.max() * 1.001
    else:
        assert not filled.any()


def test_fill_interpolates_and_holds_the_ends() -> None:
    f0 = np.array([0, 100, 0, 0, 130, 2000, 0], np.float32)
    assert fill(f0, f0 >= 50).tolist() == [100, 100, 110, 120, 130, 1100, 1100]


@given(st.integers(1280, 40_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_contour_has_sixteen_frames_per_unit(samples: int, normalize: bool) -> None:
    frames = samples // 160 + 1
    f0 = np.linspace(100, 200, frames).astype(np.float32)
    found = contour(Melody(f0, np.ones(frames, bool)), samples, RELATIVE if normalize else ABSOLUTE)
    assert found.shape == (2, 16 * pitch_count(samples))


def test_normalisation_takes_the_register_away() -> None:
    voiced = np.ones(100, bool)
    low = Melody(np.linspace(100, 150, 100).astype(np.float32), voiced)
    high = Melody(2 * low.f0, voiced)
    np.testing.assert_allclose(contour(low, 15_840, RELATIVE), contour(high, 15_840, RELATIVE), atol=1e-5)
    plain = contour(high, 15_840, ABSOLUTE) - contour(low, 15_840, ABSOLUTE)
    np.testing.assert_allclose(plain[0], 1.0, atol=1e-5)


def test_reconstruction_is_better_than_the_mean(summaries: dict[str, dict]) -> None:
    summary = summaries["pitch"]
    assert summary["f0_rmse_cents"] < 0.7 * summary["f0_spread_cents"]
    assert summary["codes_used"] > CONFIG.pitch.codes / 2


def test_killed_fit_resumes_to_the_same_codes(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CHECKPOINT_EVERY", 40)

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.7:
            raise KilledError(message)

    stage, tables = PitchFit(CONFIG.pitch, {}), {"audio": TableView.of(audio)}
    with pytest.raises(KilledError):
        stage.build(tables, tmp_path, tmp_path / "work", kill)
    stage.build(tables, tmp_path, tmp_path / "work", lambda *_: None)
    whole = PitchCoder.load(models["pitch"]).state_dict()
    assert all(np.array_equal(whole[k], v) for k, v in PitchCoder.load(tmp_path).state_dict().items())


def test_fit_on_silence_alone_works(tmp_path: Path) -> None:
    silence = table(*(row(f"s{i}", np.zeros(16_000, np.float32)) for i in range(3)))
    config = CONFIG.pitch.model_copy(update={"steps": 5})
    summary = PitchFit(config, {}).build({"audio": TableView.of(silence)}, tmp_path, tmp_path, lambda *_: None)
    assert summary["f0_rmse_cents"] is None
    assert len(PitchCoder.load(tmp_path).encode(np.zeros((2, 160), np.float32))) == 10


def test_units_survive_decoding(models: dict[str, Path]) -> None:
    coder = PitchCoder.load(models["pitch"])
    units = np.arange(12, dtype=np.int8)
    assert coder.reconstruct(units).shape == (2, 192)
    assert coder.encode(np.zeros((2, 0), np.float32)).shape == (0,)
    with pytest.raises(ModelReferenceError, match="pitch model"):
        PitchCoder.load(models["style"])
