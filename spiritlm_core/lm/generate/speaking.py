"""What is heard of an answer: all of it once it is there, or speech while the model is still writing it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import Answer, Segment, SpeechSegment, TextSegment
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.speech.grid import FRAME

if TYPE_CHECKING:
    from spiritlm_core.speech.vocoder.vocoder import Speaker

SILENT = "this model has no vocoder, so its speech cannot be heard: what you see are its tokens"
_SHORT = "too short to be heard"
_TOKEN = re.compile(r"\[(Hu|Pi|St)[0-9]+\]")


@dataclass(frozen=True)
class Voice:
    """How speech sounds: speaker, and manner of speaking where the vocoder has several; its defaults if not given."""

    speaker: Speaker | None = None
    expression: int | None = None


DEFAULT_VOICE = Voice()


@dataclass(frozen=True)
class Heard:
    """A segment of an answer, with what is heard of it."""

    segment: Segment  # text or speech
    waveform: NDArray[np.float32] | None = None  # float32[samples] at 16 kHz, of speech that can be heard
    silent: str | None = None  # why speech, or the rest of it, cannot be heard


@dataclass(frozen=True)
class Sound:
    """What can be heard by now of a stream and was not before: float32[samples] at 16 kHz."""

    waveform: NDArray[np.float32]


def hears(spirit: SpiritLM) -> bool:
    """Whether recordings can be given."""
    try:
        _ = spirit.speech_tokenizer
    except ModelReferenceError:
        return False
    return True


def speaks(spirit: SpiritLM) -> bool:
    """Whether speech can be heard."""
    return hears(spirit) and spirit.speech_tokenizer.has_vocoder


def spoken(spirit: SpiritLM, segment: SpeechSegment, voice: Voice = DEFAULT_VOICE) -> NDArray[np.float32]:
    """The waveform of a stretch of speech, float32[samples] at 16 kHz, as :meth:`SpeechSegment.waveform` makes it.

    Raises SpiritLMError: there is no vocoder, no such voice or manner, or it cannot make speech of these tokens.
    """

    def decode(tokens: str, speaker: Speaker | None) -> NDArray[np.float32]:
        return spirit.speech_tokenizer.decode(tokens, speaker, expression=voice.expression)

    return replace(segment, voice=decode).waveform(voice.speaker)


def said(spirit: SpiritLM, answer: Iterable[Segment], voice: Voice = DEFAULT_VOICE) -> NDArray[np.float32]:
    """All speech of an answer, see :func:`spoken`.

    Raises SpiritLMError: as of `spoken`, and if there is nothing to be heard.
    """
    heard = [spoken(spirit, segment, voice) for segment in answer if isinstance(segment, SpeechSegment)]
    if not any(map(len, heard)):
        raise SpiritLMError(
            (answer.empty if isinstance(answer, Answer) else None)
            or "the model answered with nothing that can be heard"
        )
    return np.concatenate(heard)


def hear(spirit: SpiritLM, segments: Iterable[Segment], voice: Voice = DEFAULT_VOICE) -> tuple[Heard, ...]:
    """The segments of an answer with their sound; what cannot be heard says why."""
    return tuple(_hear(spirit, segment, voice) for segment in segments)


def _hear(spirit: SpiritLM, segment: Segment, voice: Voice) -> Heard:
    if not isinstance(segment, SpeechSegment):
        return Heard(segment)
    if not speaks(spirit):
        return Heard(segment, silent=SILENT)
    try:
        waveform = spoken(spirit, segment, voice)
    except SpiritLMError as error:
        return Heard(segment, silent=str(error))
    return Heard(segment, waveform) if len(waveform) else Heard(segment, silent=_SHORT)


def hear_stream(
    spirit: SpiritLM,
    pieces: Iterable[Segment],
    give: Callable[[Segment | Sound], None],
    voice: Voice | None = DEFAULT_VOICE,
) -> tuple[Heard, ...]:
    """Hand on the pieces of a stream to `give` as they come, and their speech as soon as it can be heard.

    Speech that goes on with the prompt's is made with the end of that in front, which is then cut off where its last
    unit ends. However short, it is heard: whether more would come is not known when it begins. No `voice`: tokens
    alone.

    Returns the whole answer, neighbours of one kind joined; its waveforms are what was given, joined.
    """
    silent = None if voice is None or speaks(spirit) else SILENT
    found = []
    for kind, run in groupby(pieces, key=lambda piece: piece.kind):
        if kind == "speech" and voice is not None and silent is None:
            found.append(_Run(spirit, run, give).hear(voice))
        else:
            segment = _joined([_given(piece, give) for piece in run])
            found.append(Heard(segment, silent=silent if kind == "speech" else None))
    return tuple(heard for heard in found if heard.segment.content)


def _given(piece: Segment, give: Callable[[Segment | Sound], None]) -> Segment:
    give(piece)
    return piece


def _joined(pieces: Sequence[Segment]) -> Segment:
    content = "".join(piece.content for piece in pieces)
    if isinstance(pieces[0], SpeechSegment):
        return SpeechSegment(content, pieces[0].continues, asked=True)
    return TextSegment(content.strip())


class _Run:
    """A stretch of speech in a stream, whose pieces are handed on when the vocoder asks for them."""

    def __init__(self, spirit: SpiritLM, pieces: Iterator[Segment], give: Callable[[Segment | Sound], None]) -> None:
        self._tokenizer, self._pieces, self._give = spirit.speech_tokenizer, pieces, give
        self._taken: list[Segment] = []
        self._failed = False

    def hear(self, voice: Voice) -> Heard:
        """The whole stretch, once it is over."""
        sounds, silent = [], None
        try:
            for waveform in self._waveforms(voice):
                self._give(Sound(waveform))
                sounds.append(waveform)
        except SpiritLMError as error:
            if self._failed:  # the model, not the vocoder
                raise
            silent = str(error)
            self._taken += [_given(piece, self._give) for piece in self._pieces]
        segment = _joined(self._taken)
        return Heard(segment, np.concatenate(sounds), silent) if sounds else Heard(segment, silent=silent or _SHORT)

    def _waveforms(self, voice: Voice) -> Iterator[NDArray[np.float32]]:
        """What is new, without the front that the prompt's speech takes."""
        made = 0
        for waveform in self._tokenizer.speak(self._tokens(), voice.speaker, expression=voice.expression):
            skip = max(0, self._front() - made)
            made += len(waveform)
            if len(waveform) > skip:
                yield waveform[skip:]

    def _tokens(self) -> Iterator[str]:
        try:
            for piece in self._pieces:
                self._taken.append(_given(piece, self._give))
                yield (self._before if len(self._taken) == 1 else "") + piece.content
        except SpiritLMError:
            self._failed = True
            raise

    @cached_property
    def _before(self) -> str:
        """The end of the prompt's speech, as far as it is heard in what follows."""
        config = self._tokenizer.vocoder.config
        continues = self._taken[0].continues if isinstance(self._taken[0], SpeechSegment) else ""
        return last_units(continues, config.context[0] + config.duration_context)

    def _front(self) -> int:
        """Samples that the prompt's speech takes: exact as soon as anything behind it has been made."""
        if not (count := self._before.count("[Hu")):
            return 0
        tokens = self._before + "".join(piece.content for piece in self._taken)
        vocoder = self._tokenizer.vocoder
        units = self._tokenizer.from_string(tokens).hubert[: count + vocoder.config.duration_context]
        return int(vocoder.durations(units)[:count].sum()) * FRAME


def last_units(tokens: str, count: int) -> str:
    """The last `count` HuBERT tokens and what stands between them, with the pitch and style that hold there."""
    matches = list(_TOKEN.finditer(tokens))
    units = [i for i, token in enumerate(matches) if token[1] == "Hu"]
    start = units[-count] if 0 < count < len(units) else 0
    holding = {token[1]: token[0] for token in matches[:start] if token[1] != "Hu"}
    return "".join([*holding.values(), *(token[0] for token in matches[start:])])
