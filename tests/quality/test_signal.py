from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import resample_poly

from spiritlm_core.quality.signal import measure, wada_snr
from spiritlm_core.quality.stage import of_words
from tests.audio.synthetic import RATE, talk, voice


def gamma_speech(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Samples distributed as WADA takes those of speech to be."""
    count = int(seconds * RATE)
    return rng.gamma(0.4, 1.0, count) * rng.choice([-1, 1], count) / np.sqrt(0.56)


@pytest.mark.parametrize("ratio", [-5, 0, 7.5, 20, 35])
def test_wada_gives_the_ratio_of_gamma_speech_in_normal_noise(ratio: float) -> None:
    rng = np.random.default_rng(0)
    mixed = gamma_speech(30, rng) + rng.standard_normal(30 * RATE) * 10 ** (-ratio / 20)
    assert wada_snr((0.05 * mixed).astype(np.float32)) == pytest.approx(ratio, abs=1.0)


@pytest.mark.parametrize("ratio", [0, 10])
def test_noise_in_pauses_gives_the_ratio_of_a_mixture(ratio: float) -> None:
    speech = talk(12.0)
    noise = np.random.default_rng(1).standard_normal(len(speech)).astype(np.float32)
    noise *= np.sqrt(np.mean(speech**2)) * 10 ** (-ratio / 20)
    assert measure(0.5 * (speech + noise))["snr"] == pytest.approx(ratio, abs=1.5)


def test_level_clipping_and_offset_are_those_of_the_samples() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    assert measure(0.1 * tone)["level"] == pytest.approx(-23.01, abs=0.01)
    assert measure(0.1 * tone)["clipping"] == 0
    assert measure(np.clip(2 * tone, -1, 1))["clipping"] == pytest.approx(2 / 3, abs=0.01)
    assert measure(0.1 * tone + np.float32(0.05))["dc"] == pytest.approx(0.05, abs=1e-4)


def test_half_a_clip_of_silence_is_half_silent_and_half_speech() -> None:
    half = measure(np.concatenate([voice(2.0), np.zeros(2 * RATE, np.float32)]))
    assert half["silence"] == pytest.approx(0.5, abs=0.05)
    assert 0.3 < half["speech"] <= 0.5
    assert measure(voice(2.0))["speech"] > 0.6


def test_what_was_sampled_at_8_khz_reaches_4() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    telephone = resample_poly(resample_poly(noise, 1, 2), 2, 1).astype(np.float32)
    assert measure(noise.astype(np.float32))["bandwidth"] == 8000
    assert measure(telephone)["bandwidth"] == pytest.approx(4000, abs=700)


@pytest.mark.parametrize("samples", [1, 100, 4000])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_short_and_silent_clips_have_numbers(samples: int, level: float) -> None:
    row = measure(np.full(samples, level, np.float32))
    assert len(row["fingerprint"]) >= 1
    assert all(np.isfinite(value) for name, value in row.items() if name != "fingerprint")


def test_rate_and_confidence_are_of_the_words() -> None:
    def word(start: float, end: float, score: float | None) -> dict[str, object]:
        return {"word": "a", "start": start, "end": end, "score": score, "interpolated": score is None}

    assert of_words([word(1.0, 1.5, 0.8), word(1.5, 2.0, None), word(2.5, 3.0, 0.4)]) == {
        "rate": pytest.approx(1.5),
        "confidence": pytest.approx(0.6),
    }
    assert of_words([]) == {"rate": None, "confidence": None}
