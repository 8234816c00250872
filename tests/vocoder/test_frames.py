"""How many frames each unit gets, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.speech.grid import CHUNK, pitch_count, style_count, unit_count
from spiritlm_core.speech.vocoder.frames import Stream, frames_of, streams_of
from tests.vocoder.models import BASE, EXPRESSIVE


def lists(streams: dict[str, Stream]) -> dict[str, list[int]]:
    return {name: stream.tolist() for name, stream in streams.items()}


def units(hubert: object, pitch: object = None, style: object = None) -> SimpleNamespace:
    return SimpleNamespace(hubert=hubert, pitch=pitch, style=style)


def twice(found: Stream) -> Stream:
    return np.full(len(found), 2)


def test_rows_last_as_long_as_predicted() -> None:
    streams = streams_of(units([1, 1, 2], [3, 4, 5], [0, 0, 1]), EXPRESSIVE)
    found = frames_of(streams, EXPRESSIVE, twice, collapse=False)
    assert lists(found) == {"units": [1, 1, 1, 1, 2, 2], "pitch": [3, 3, 4, 4, 5, 5], "style": [0, 0, 0, 0, 1, 1]}
    found = frames_of(streams, EXPRESSIVE, twice, collapse=True)
    assert lists(found) == {"units": [1, 1, 2, 2], "pitch": [3, 3, 5, 5], "style": [0, 0, 1, 1]}
    found = frames_of(streams, EXPRESSIVE, None, collapse=True)
    assert lists(found) == lists(streams)


def test_units_of_a_recording_keep_their_timing() -> None:
    streams = streams_of(units(list(range(30)), list(range(8)) * 2, [3, 4]), EXPRESSIVE)
    found = frames_of(streams, EXPRESSIVE, twice, collapse=False)
    assert found["units"].tolist() == list(range(30))
    assert found["pitch"].tolist() == [p % 8 for p in range(15) for _ in range(2)]
    assert found["style"].tolist() == [3] * 25 + [4] * 5
    short = frames_of(streams_of(units(range(7), [1, 2, 3], [4]), EXPRESSIVE), EXPRESSIVE, None, collapse=False)
    assert short["pitch"].tolist() == [1, 1, 2, 2, 3, 3, 3]
    assert short["style"].tolist() == [4] * 7


def test_units_of_a_recording_at_12_5_hertz_are_two_frames_each() -> None:
    config = EXPRESSIVE.model_copy(update={"unit_frames": 2})
    recorded = streams_of(units(list(range(30)), list(range(8)) * 3 + list(range(6)), [3, 4, 0]), config)
    for durations in (None, twice):
        found = frames_of(recorded, config, durations, collapse=False)
        assert found["units"].tolist() == [unit for unit in range(30) for _ in range(2)]
        assert found["pitch"].tolist() == [p % 8 for p in range(30) for _ in range(2)]
        assert found["style"].tolist() == [3] * 25 + [4] * 25 + [0] * 10
    said = frames_of(streams_of(units([1, 2], [3, 4], [0, 1]), config), config, twice, collapse=False)
    assert lists(said) == {"units": [1, 1, 2, 2], "pitch": [3, 3, 4, 4], "style": [0, 0, 1, 1]}


def test_negative_units_are_dropped_with_their_rows() -> None:
    found = streams_of(units([5, -1, 7, -2], [1, 2, 3, 4], [1]), EXPRESSIVE)
    assert lists(found) == {"units": [5, 7], "pitch": [1, 3], "style": [1]}
    assert lists(streams_of(units([5, -1], [99], [-7]), BASE)) == {"units": [5]}


@given(st.integers(1, 200), st.integers(1, 110), st.integers(1, 10))
def test_counts_that_fit_and_counts_that_do_not(count: int, pitch: int, style: int) -> None:
    """A stream at its own rate may be one of its units and a frame off."""
    given_units = units(np.zeros(count, int), np.zeros(pitch, int), np.zeros(style, int))
    fits = all(n == count or abs(n * every - count) <= every + 1 for n, every in ((pitch, 2), (style, 25)))
    streams = streams_of(given_units, EXPRESSIVE)
    if fits:
        found = frames_of(streams, EXPRESSIVE, None, collapse=False)
        assert {len(stream) for stream in found.values()} == {count}
    else:
        with pytest.raises(SpiritLMError, match="do not fit"):
            frames_of(streams, EXPRESSIVE, None, collapse=False)


@given(st.integers(1280, 700 * 16_000))
def test_units_of_every_recording_fit(samples: int) -> None:
    pieces = [min(CHUNK, samples - start) for start in range(0, samples, CHUNK)]
    counts = [sum(map(count, pieces)) for count in (unit_count, pitch_count, style_count)]
    streams = streams_of(units(*(np.zeros(count, int) for count in counts)), EXPRESSIVE)
    found = frames_of(streams, EXPRESSIVE, None, collapse=False)
    assert {name: len(stream) for name, stream in found.items() if len(stream) != counts[0]} == {}


def test_what_is_refused() -> None:
    for wrong, message in (
        (units([]), "no HuBERT units"),
        (units([-1, -3], [1, 1], [1, 1]), "no HuBERT units"),
        (units([1]), "needs pitch units"),
        (units([1], [2]), "needs style units"),
        (units([60], [2], [0]), "HuBERT units 0 to 59, not 60"),
        (units([1], [8], [0]), "pitch units 0 to 7, not 8"),
        (units([1], [-1], [0]), "not -1"),
        (units([1.5], [2], [0]), "integers"),
        (units([[1]], [2], [0]), "one after the other"),
    ):
        with pytest.raises(SpiritLMError, match=message):
            streams_of(wrong, EXPRESSIVE)
    with pytest.raises(SpiritLMError, match="style has 1 units, but durations need one for each of 2"):
        frames_of(streams_of(units([1, 2], [2, 3], [0]), EXPRESSIVE), EXPRESSIVE, twice, collapse=False)
