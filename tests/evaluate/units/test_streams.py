"""Rates, robustness, F0 and speaker probe on made-up units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.audio.resample import limit_band
from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.evaluate.units.measure import stream_figures
from spiritlm_core.evaluate.units.voice import (
    add_noise,
    changes,
    distances,
    histograms,
    robustness,
    speaker_probe,
    windows,
)
from spiritlm_core.speech.copies import played
from spiritlm_core.speech.grid import RATES_HZ
from spiritlm_core.speech.types import Units


def _tone(hertz, seconds=1.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def _loudest(waveform):
    return np.argmax(np.abs(np.fft.rfft(waveform))) * 16_000 / len(waveform)


def test_rates_and_bits_worked_out_by_hand():
    # eight frames, four units after collapsing, two of each: one bit each, in half a second
    figures = stream_figures("hubert", [np.array([1, 1, 2, 2]), np.array([1, 1, 1, 2])], 4, 0.5)
    assert figures["frames_per_second"] == 16
    assert figures["units_per_second"] == 8
    assert figures["bitrate"] == pytest.approx(8)
    assert figures["bitrate_flat"] == pytest.approx(16)
    assert figures["used"] == 2
    shares = np.array([5 / 8, 3 / 8])
    assert figures["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-3)
    # style does not collapse, and clips do not run into each other
    assert stream_figures("style", [np.array([1, 1])], 4, 2.0)["units_per_second"] == 1
    assert stream_figures("hubert", [np.array([1]), np.array([1])], 4, 1.0)["units_per_second"] == 2


def test_unit_edit_distance():
    clean = [Units(np.array([1, 1, 2, 3], np.int16), None, np.array([4, 4], np.int8))]
    assert distances(clean, clean) == {"hubert": 0.0, "style": 0.0}
    slower = [Units(np.array([1, 1, 1, 2, 2, 3, 3], np.int16), None, np.array([4, 4, 4], np.int8))]
    assert distances(clean, slower) == {"hubert": 0.0, "style": 0.5}  # durations do not count, but for style
    other = [Units(np.array([1, 9, 3], np.int16), None, np.array([4, 4], np.int8))]
    assert distances(clean, other)["hubert"] == pytest.approx(1 / 3, abs=1e-5)
    assert distances([Units(np.zeros(0, np.int16))], [Units(np.zeros(0, np.int16))]) == {"hubert": None}


@given(st.floats(-5, 40), st.integers(0, 100))
def test_noise_has_the_power_asked_for(snr, seed):
    clean = _tone(440)
    noise = add_noise(clean, snr, np.random.default_rng(seed)) - clean
    found = 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise.astype(float) ** 2))
    assert found == pytest.approx(snr, abs=0.3)


def test_8_khz_takes_what_is_above_4_khz_and_nothing_below():
    low, high = _tone(1000), _tone(6000)
    assert np.abs(limit_band(low, 8000) - low)[500:-500].max() < 0.01
    assert np.abs(limit_band(high, 8000))[500:-500].max() < 0.01
    assert len(limit_band(low[:-1], 8000)) == len(low) - 1


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_faster_is_shorter_and_higher(speed):
    faster = played(_tone(500, 2.0), speed)
    assert len(faster) == pytest.approx(32_000 / speed, abs=2)
    assert _loudest(faster) == pytest.approx(500 * speed, abs=1)


def test_conditions_change_each_clip_the_same_way_every_time():
    clips = [Clip(key, None, None, None, _tone(300 + 10 * i)) for i, key in enumerate("ab")]

    def loud(waveforms, speakers):
        """Units that follow the energy of 40 ms frames."""
        assert speakers == [None, None]
        frames = [w[: len(w) // 640 * 640].reshape(-1, 640) for w in waveforms]
        return [Units((100 * np.abs(f).mean(axis=1)).astype(np.int16)) for f in frames]

    conditions = changes((20.0, 0.0), (1.1,), seed=3)
    assert list(conditions) == ["noise 20 dB", "noise 0 dB", "8 kHz", "speed 1.1"]
    clean = dict(zip("ab", loud([c.waveform for c in clips], [None, None]), strict=True))
    found = robustness(loud, clips, clean, conditions)
    assert found == robustness(loud, clips, clean, changes((20.0, 0.0), (1.1,), seed=3))
    assert found["noise 0 dB"]["hubert"] > found["noise 20 dB"]["hubert"]
    assert robustness(loud, clips, clean, {"nothing": lambda clip: clip.waveform})["nothing"]["hubert"] == 0.0


def _pieces(units_of, rng):
    """Four speakers with ten clips of two pieces each."""
    speakers = [name for name in "abcd" for _ in range(20)]
    clips = [f"{name}{i // 2}" for i, name in enumerate(speakers)]
    return histograms([units_of(name, clip) for name, clip in zip(speakers, clips, strict=True)], 20), speakers, clips


def test_the_probe_finds_speakers_that_have_units_of_their_own_and_no_others():
    rng = np.random.default_rng(0)
    own = _pieces(lambda name, _: rng.integers(5 * (ord(name) - 97), 5 * (ord(name) - 97) + 5, 50), rng)
    found = speaker_probe(*own, folds=5, seed=0)
    assert found == {"accuracy": 1.0, "chance": 0.25, "speakers": 4, "pieces": 80}
    shared = _pieces(lambda *_: rng.integers(0, 20, 50), rng)
    assert speaker_probe(*shared, folds=5, seed=0)["accuracy"] < 0.5


def test_the_probe_is_not_fooled_by_what_pieces_of_a_clip_share():
    rng = np.random.default_rng(0)
    topics = {f"{name}{i}": rng.integers(0, 20, 3) for name in "abcd" for i in range(40)}
    found = speaker_probe(*_pieces(lambda _, clip: rng.choice(topics[clip], 50), rng), folds=5, seed=0)
    assert found["accuracy"] < 0.5


def test_the_probe_says_why_it_has_no_figure():
    features, clips = histograms([np.array([0, 1])] * 6, 2), list("123456")
    assert "missing" in speaker_probe(features, ["a"] * 6, clips, folds=3, seed=0)
    assert "missing" in speaker_probe(features, ["a", "a", "b", "b", None, None], clips, folds=3, seed=0)
    assert "missing" in speaker_probe(features, list("aaabbb"), list("112334"), folds=3, seed=0)
    assert "missing" in speaker_probe(np.zeros((0, 2)), [], [], folds=3, seed=0)


def test_windows_hold_the_same_time_of_every_stream():
    streams = {"hubert": np.arange(174), "pitch": np.arange(87), "style": np.arange(7)}
    found = windows(streams, RATES_HZ, 3.0)
    assert [len(window["hubert"]) for window in found] == [75, 75]
    assert [len(window["pitch"]) for window in found] == [38, 37]
    assert [window["style"].tolist() for window in found] == [[0, 1, 2], [3, 4, 5]]
    assert windows({"hubert": np.arange(74)}, RATES_HZ, 3.0) == []


def test_histograms_of_empty_clips_are_zero():
    assert histograms([np.zeros(0, np.int64), np.array([1, 1, 2, 1])], 4).tolist() == [[0, 0, 0, 0], [0, 0.75, 0.25, 0]]
