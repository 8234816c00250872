"""Speech while its units are still coming: the same waveform as from all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.speech.vocoder.vocoder import SpeechStream, Vocoder
from spiritlm_core.tokens.speech import Streams
from tests.vocoder.models import BASE, FOURIER, build

VOCODERS = {"base": build(BASE), "fourier": build(FOURIER)}
for vocoder in VOCODERS.values():  # durations that depend on the units around
    torch.nn.init.normal_(vocoder.model.durations.last.weight, std=0.3, generator=torch.Generator().manual_seed(0))


def units(first: int, last: int) -> Streams:
    place = np.arange(first, last)
    return Streams(place * 7 % 60, place * 5 % 8, place // 9 % 5)


@pytest.mark.parametrize("name", list(VOCODERS))
@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 20))
def test_pieces_are_the_whole(name: str, counts: list[int], chunk: int) -> None:
    vocoder: Vocoder = VOCODERS[name]
    ends = np.cumsum(counts).tolist()
    stream = SpeechStream(vocoder, speaker=1, chunk=chunk)
    pieces = [stream.take(units(end - count, end)) for end, count in zip(ends, counts, strict=True)]
    pieces.append(stream.end())
    whole = vocoder.decode(units(0, ends[-1]), speaker=1)
    found = np.concatenate(pieces)
    assert len(found) == len(whole)
    assert np.abs(found - whole).max() < 1e-5
    assert all(len(piece) == 0 or len(piece) >= 640 * chunk for piece in pieces[:-1])


def test_the_first_piece_comes_before_the_last_unit() -> None:
    vocoder, stream = VOCODERS["fourier"], SpeechStream(VOCODERS["fourier"])
    heard = [len(stream.take(units(i, i + 1))) for i in range(120)]
    assert sum(heard) > 0
    late = (sum(heard) + len(stream.end())) - len(vocoder.decode(units(0, 120)))
    assert late == 0


def test_nothing_and_what_does_not_fit() -> None:
    stream = SpeechStream(VOCODERS["fourier"])
    assert len(stream.end()) == 0
    with pytest.raises(SpiritLMError, match="pitch has 2 units"):
        stream.take(Streams(np.arange(3), np.arange(2), np.arange(3)))
    with pytest.raises(SpiritLMError, match="at least one frame"):
        SpeechStream(VOCODERS["fourier"], chunk=0)
