"""Speech of a stream is that of the whole answer, and is there before the answer is."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core import SpiritLM
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.content import Answer, Segment, Speech, SpeechSegment, TextSegment
from spiritlm_core.lm.generate.speaking import DEFAULT_VOICE, Heard, Sound, Voice, hear, hear_stream, last_units, said
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.vocoder.models import BASE, EXPRESSIVE, FOURIER, build

VOCODERS = {"base": BASE, "expressive": EXPRESSIVE, "fourier": FOURIER}


@pytest.fixture(scope="module", params=VOCODERS)
def spirit(speaking: Path, request: pytest.FixtureRequest) -> SpiritLM:
    """The same model with several vocoders, whose speakers have names."""
    model = SpiritLM.from_pretrained(speaking, "cpu")
    named = VOCODERS[request.param].model_copy(update={"speaker_names": ("ann", "bo", "cy")})
    return SpiritLM(model.model, model.layout, SpeechTokenizer(model.speech_tokenizer._extractor, build(named)))


def tokens_of(numbers: list[int]) -> list[SpeechSegment]:
    """Speech tokens one by one, style and pitch changing among the units."""
    found = ["[St1]", "[Pi2]"]
    for number in numbers:
        found += [f"[Pi{number % 8}]"] * (number % 3 == 0) + [f"[St{number % 5}]"] * (number % 11 == 0)
        found.append(f"[Hu{number}]")
    return [SpeechSegment(token) for token in found]


def streamed(
    spirit: SpiritLM, pieces: list[Segment], voice: Voice | None = DEFAULT_VOICE
) -> tuple[list[Segment | Sound], tuple[Heard, ...]]:
    given: list[Segment | Sound] = []
    return given, hear_stream(spirit, iter(pieces), given.append, voice)


def sound_of(given: list[Segment | Sound]) -> np.ndarray:
    return np.concatenate([piece.waveform for piece in given if isinstance(piece, Sound)])


def collected(coming: Generator[Segment, None, Answer], pieces: list[Segment]) -> Answer:
    """What a stream returns; what it yields goes into `pieces`."""

    def whole() -> Iterator[Segment]:
        returned.append((yield from coming))

    returned: list[Answer] = []
    pieces.extend(whole())
    return returned[0]


UNITS = st.lists(st.integers(0, 39), min_size=1, max_size=60)


@settings(max_examples=12, deadline=None)
@given(UNITS, st.sampled_from([None, 0, "cy"]))
def test_pieces_are_the_whole(spirit: SpiritLM, units: list[int], speaker: str | int | None) -> None:
    pieces: list[Segment] = [*tokens_of(units)]
    given, (heard,) = streamed(spirit, pieces, Voice(speaker))
    tokens = "".join(piece.content for piece in pieces)
    assert [piece for piece in given if not isinstance(piece, Sound)] == pieces
    want = spirit.speech_tokenizer.decode(tokens, speaker)
    assert (heard.segment.content, len(sound_of(given))) == (tokens, len(want))
    assert np.abs(sound_of(given) - want).max() < 1e-4
    assert np.array_equal(heard.waveform, sound_of(given))


@settings(max_examples=12, deadline=None)
@given(UNITS, UNITS)
def test_speech_that_goes_on_with_the_prompts(spirit: SpiritLM, before: list[int], units: list[int]) -> None:
    """As if all of it were spoken, and the front cut off where the prompt's last unit ends."""
    known = "".join(piece.content for piece in tokens_of(before))
    pieces: list[Segment] = [SpeechSegment(f"[Hu{unit}]") for unit in units]
    pieces[0] = SpeechSegment(pieces[0].content, continues=known)
    given, (heard,) = streamed(spirit, pieces)
    vocoder = spirit.speech_tokenizer.vocoder
    front = int(vocoder.durations(np.array([*before, *units]))[: len(before)].sum()) * 640
    want = spirit.speech_tokenizer.decode(known + "".join(piece.content for piece in pieces))[front:]
    assert len(sound_of(given)) == len(want)
    assert np.abs(sound_of(given) - want).max() < 1e-4
    assert heard.segment == SpeechSegment("".join(piece.content for piece in pieces), continues=known)


def test_sound_comes_before_the_end(spirit: SpiritLM) -> None:
    given, _ = streamed(spirit, [*tokens_of(list(range(40)) * 3)])
    sounds = [place for place, piece in enumerate(given) if isinstance(piece, Sound)]
    assert len(sounds) > 3
    assert sounds[0] < len(given) / 2


def test_stretches_and_silence(spirit: SpiritLM) -> None:
    expressive = bool(spirit.speech_tokenizer.vocoder.config.pitch_units)
    pieces: list[Segment] = [TextSegment(" one"), *tokens_of([1, 2]), TextSegment(" two "), SpeechSegment("[Hu3]")]
    given, heard = streamed(spirit, pieces)
    assert [one.segment.content for one in heard] == ["one", "[St1][Pi2][Hu1][Hu2]", "two", "[Hu3]"]
    assert [one.waveform is not None for one in heard] == [False, True, False, not expressive]
    assert (heard[3].silent is not None) == expressive, "no pitch"
    assert [piece for piece in given if not isinstance(piece, Sound)] == pieces
    given, heard = streamed(spirit, pieces, None)
    assert given == pieces
    assert {(one.waveform, one.silent) for one in heard} == {(None, None)}
    mute = SpiritLM(spirit.model, spirit.layout)
    assert ["no vocoder" in (one.silent or "") for one in streamed(mute, pieces)[1]] == [False, True] * 2


def test_what_the_vocoder_cannot_say_ends_nothing(spirit: SpiritLM) -> None:
    pieces: list[Segment] = [*tokens_of([1] * 30), SpeechSegment("[Hu999]"), SpeechSegment("[Hu2]"), TextSegment(" x")]
    given, (speech, text) = streamed(spirit, pieces)
    assert [piece for piece in given if not isinstance(piece, Sound)] == pieces
    assert text.segment.content == "x"
    assert np.array_equal(speech.waveform, sound_of(given))
    assert "999" in (speech.silent or "")

    def failing() -> Iterator[Segment]:
        yield from tokens_of([1] * 30)
        raise SpiritLMError("the model failed")

    with pytest.raises(SpiritLMError, match="the model failed"):
        hear_stream(spirit, failing(), lambda _: None)


def test_of_a_model(spirit: SpiritLM) -> None:
    """What a stream returns is the answer; its first piece knows which speech it goes on with."""
    prompt, finishes, continued = Speech(tokens="[St2][Pi3][Hu4][Hu1]"), set(), 0
    for seed in range(8):
        options = {"max_new_tokens": 30, "temperature": 2.0, "seed": seed}
        whole = spirit.generate(prompt, "any", **options)
        pieces: list[Segment] = []
        assert collected(spirit.generate_stream(prompt, "any", **options), pieces) == whole
        finishes.add(whole.finish)
        opened = whole[0].continues if len(whole) and isinstance(whole[0], SpeechSegment) else ""
        assert not pieces or getattr(pieces[0], "continues", "") == opened
        continued += bool(opened)
        heard = hear_stream(spirit, pieces, lambda _: None)
        assert "".join(h.segment.content for h in heard if isinstance(h.segment, SpeechSegment)) == whole.tokens
    assert continued
    assert finishes >= {"length"}


def test_voices_by_name(spirit: SpiritLM) -> None:
    answer = [SpeechSegment("[St1][Pi2][Hu1][Hu2][Hu3]", asked=True)]
    for name, number in (("ann", 0), ("cy", 2), ("1", 1)):
        assert np.array_equal(said(spirit, answer, Voice(name)), said(spirit, answer, Voice(number)))
    assert not np.array_equal(said(spirit, answer, Voice("ann")), said(spirit, answer, Voice("bo")))
    (heard,) = hear(spirit, answer, Voice("nobody"))
    assert "no speaker 'nobody': ann, bo, cy" in (heard.silent or "")


@given(UNITS, st.integers(1, 70))
def test_last_units(units: list[int], count: int) -> None:
    """The streams of the end are the end of the streams."""
    tokens = "".join(piece.content for piece in tokens_of(units))
    whole, end = (SpeechTokenizer.from_string(string) for string in (tokens, last_units(tokens, count)))
    for name in ("hubert", "pitch", "style"):
        assert getattr(end, name).tolist() == getattr(whole, name)[-count:].tolist()
