"""Distances between waveforms, against answers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.evaluate.resynthesis.distances import (
    ORDER,
    WARP,
    Analysis,
    analyse,
    compare,
    distortions,
    mel_cepstrum,
    warping_path,
)
from tests.align.speech import sentences


def _tone(hertz: float, seconds: float = 1.5) -> np.ndarray:
    """Eight harmonics, falling by 6 dB an octave."""
    t = np.arange(int(16_000 * seconds)) / 16_000
    return (0.2 * sum(np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, 9))).astype(np.float32)


def _warped(bins: int = 513) -> np.ndarray:
    omega = np.linspace(0, np.pi, bins)
    return omega + 2 * np.arctan2(WARP * np.sin(omega), 1 - WARP * np.cos(omega))


@pytest.mark.parametrize("number", [1, 7, ORDER])
def test_one_cosine_of_the_log_spectrum_is_one_coefficient(number):
    """ln|H| = 0.5 cos(m w'), so ln of the power is cos(m w') and c_m is 0.5."""
    (found,) = mel_cepstrum(np.exp(np.cos(number * _warped()))[None])
    expected = np.zeros(ORDER)
    expected[number - 1] = 0.5
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_mel_cepstral_distortion_of_a_known_difference():
    """It is the RMS difference of the spectra in dB over the mel scale: 20 log10 e times 0.5 / sqrt 2."""
    flat, wavy = np.ones((1, 513)), np.exp(np.cos(5 * _warped()))[None]
    ((found,),) = distortions(mel_cepstrum(flat), mel_cepstrum(wavy))
    assert found == pytest.approx(20 * np.log10(np.e) * 0.5 / np.sqrt(2), rel=2e-3)


def test_a_recording_is_at_no_distance_from_itself_and_loudness_does_not_count():
    waveform = sentences(1)[0][1]
    known = analyse(waveform)
    same = compare(known, known, timed=True)
    assert (same.mcd, same.mcd_in_place, same.squared_cents, same.wrong_voicing) == (0, 0, 0, 0)
    assert same.voiced > 100
    assert compare(known, analyse(0.5 * waveform), timed=True).mcd < 0.1


def test_another_sentence_is_farther_than_noise_of_20_db():
    (_, one), (_, other) = sentences(2)
    noise = np.random.default_rng(0).normal(0, 0.1 * one.std(), len(one)).astype(np.float32)
    known = analyse(one)
    near, far = (compare(known, analyse(w), timed=False).mcd for w in (one + noise, other))
    assert 0.5 < near < far


def test_a_semitone_is_a_hundred_cents():
    found = compare(analyse(_tone(200)), analyse(_tone(200 * 2 ** (1 / 12))), timed=True)
    assert found.voiced > 100
    assert np.sqrt(found.squared_cents / found.voiced) == pytest.approx(100, abs=5)


def test_voicing_is_compared_frame_by_frame_as_far_as_both_go():
    cepstra = np.zeros((6, ORDER))
    first = Analysis(np.array([0, 0, 100.0, 100, 100, 100]), cepstra)
    second = Analysis(np.array([0, 100.0, 100, 0, 200]), cepstra[:5])
    found = compare(first, second, timed=True)
    assert (found.frames, found.wrong_voicing, found.voiced) == (5, 2, 2)
    assert found.squared_cents == pytest.approx(1200**2)


def test_what_was_only_stretched_is_at_no_distance_once_it_is_warped():
    known = analyse(sentences(1)[0][1])
    twice = Analysis(np.repeat(known.f0, 2), np.repeat(known.cepstra, 2, axis=0))
    found = compare(known, twice, timed=False)
    assert (found.mcd, found.squared_cents, found.mcd_in_place) == (0, 0, None)
    assert found.wrong_voicing == 0
    assert compare(known, twice, timed=True).mcd_in_place > 1


def test_digital_silence_and_a_hundredth_of_a_second_can_be_compared():
    silence, blip = analyse(np.zeros(16_000, np.float32)), analyse(np.full(160, 0.1, np.float32))
    assert not silence.f0.any()
    assert np.isfinite(compare(silence, blip, timed=False).mcd)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_no_path_is_cheaper(height, width, seed):
    distances = np.random.default_rng(seed).random((height, width))
    path = warping_path(distances)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [height - 1, width - 1]
    assert {tuple(step) for step in np.diff(path, axis=0).tolist()} <= {(1, 1), (1, 0), (0, 1)}
    assert distances[path[:, 0], path[:, 1]].sum() == pytest.approx(_cheapest(distances))


def _cheapest(distances: np.ndarray) -> float:
    cost = np.full((distances.shape[0] + 1, distances.shape[1] + 1), np.inf)
    cost[0, 0] = 0
    for i, j in np.ndindex(distances.shape):
        cost[i + 1, j + 1] = distances[i, j] + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return cost[-1, -1]
