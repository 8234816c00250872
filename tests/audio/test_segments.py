"""Voice activity and segments."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.audio.codec import to_int16
from spiritlm_core.audio.config import AudioConfig, VadConfig
from spiritlm_core.audio.vad import Region, loud_region, segments, speech_probabilities, speech_regions
from tests.audio.synthetic import talk, voice


def _regions(pairs: list[tuple[float, float]]) -> list[Region]:
    return [Region(*pair) for pair in pairs]


@st.composite
def _speech(draw: st.DrawFn) -> list[Region]:
    at, found = 0.0, []
    for pause, length in draw(st.lists(st.tuples(st.floats(0.3, 9.0), st.floats(0.2, 70.0)), min_size=1, max_size=25)):
        found.append(Region(at + pause, at + pause + length))
        at = found[-1].end
    return found


@given(_speech(), st.floats(2, 40), st.floats(0, 0.5), st.integers(0, 99))
def test_segments_are_bounded_ordered_and_cover_all_speech(
    regions: list[Region], max_seconds: float, padding: float, seed: int
) -> None:
    config = AudioConfig(max_seconds=max_seconds, padding=padding)
    duration = regions[-1].end + 0.1
    probabilities = np.random.default_rng(seed).random(int(duration / 0.032) + 1)
    found = segments(regions, probabilities, duration, config)
    assert all(0 <= one.start < one.end <= duration for one in found)
    assert all(one.end - one.start <= max_seconds + 1e-6 for one in found)
    assert all(left.end <= right.start + 1e-9 for left, right in pairwise(found))
    for time in np.linspace(0.001, 0.999, 7):
        for region in regions:
            point = region.start + time * (region.end - region.start)
            assert any(one.start <= point <= one.end for one in found)


def test_all_speech_that_fits_is_one_segment() -> None:
    found = segments(_regions([(1, 3), (9, 12), (20, 28)]), np.zeros(1000), 29.0, AudioConfig())
    assert found == [Region(0.7, 28.3)]


def test_cut_at_the_longest_pause_of_the_second_half() -> None:
    regions = _regions([(0, 5), (6.9, 16), (16.5, 20), (21.5, 25), (25.4, 32), (32.5, 40)])
    found = segments(regions, np.zeros(2000), 40.0, AudioConfig(padding=0.0))
    assert found == _regions([(0, 20), (21.5, 40)])


def test_a_long_pause_always_cuts() -> None:
    found = segments(_regions([(0, 4), (8, 12), (13, 40)]), np.zeros(2000), 40.0, AudioConfig(padding=0.0))
    assert found[0] == Region(0, 4)


def test_speech_without_pauses_is_cut_where_it_is_least_likely() -> None:
    probabilities = np.ones(2000)
    probabilities[700] = 0.4
    found = segments(_regions([(0, 40)]), probabilities, 40.0, AudioConfig(padding=0.0))
    assert found == [Region(0, 700 * 0.032), Region(700 * 0.032, 40)]


def test_regions_hold_through_short_pauses_and_drop_bursts() -> None:
    probabilities = np.array([0.0] * 5 + [0.9] * 20 + [0.05] * 4 + [0.6] * 10 + [0.0] * 20 + [0.9] * 3 + [0.0] * 9)
    assert speech_regions(probabilities, VadConfig()) == [Region(5 * 0.032, 39 * 0.032)]


def test_detector_finds_the_phrases_and_no_noise() -> None:
    quiet = (1e-3 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    waveform = np.concatenate([quiet, voice(2.0), quiet])
    (region,) = speech_regions(speech_probabilities(waveform), VadConfig())
    assert abs(region.start - 2.0) < 0.1
    assert abs(region.end - 4.0) < 0.1
    noise = 0.1 * np.random.default_rng(1).standard_normal(48_000).astype(np.float32)
    assert speech_regions(speech_probabilities(noise), VadConfig()) == []


def test_probabilities_do_not_depend_on_pieces_or_type(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = talk(12.0)
    whole = speech_probabilities(waveform)
    assert len(whole) == -(-len(waveform) // 512)
    monkeypatch.setattr("spiritlm_core.audio.vad._BATCH", 64)
    np.testing.assert_allclose(speech_probabilities(waveform), whole, atol=1e-4)
    np.testing.assert_allclose(speech_probabilities(to_int16(waveform)), whole, atol=0.05)


def test_short_words_are_kept() -> None:
    config = VadConfig()
    assert all(speech_regions(speech_probabilities(voice(0.45, seed)), config) for seed in range(4))


def test_loud_region_is_where_the_energy_is() -> None:
    waveform = np.zeros(16_000, np.int16)
    waveform[5120:7680] = 3000
    assert loud_region(waveform) == Region(0.32, 0.48)
    assert loud_region(np.zeros(100, np.int16)) is None
