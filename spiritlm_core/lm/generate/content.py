"""What goes into a prompt and what comes out of a model: pieces of text and of speech."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.waveform import Audio
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.prompts import Finish, Kind, audible
from spiritlm_core.tokens.speech import Streams, from_string

if TYPE_CHECKING:
    from spiritlm_core.speech.vocoder.vocoder import Speaker


@dataclass(frozen=True)
class Text:
    """Text in a prompt."""

    text: str
    kind: ClassVar[Kind] = "text"

    def __post_init__(self) -> None:
        """Raises SpiritLMError for what is no text."""
        _check_text(self.text)


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech in a prompt: a recording, its units, or its tokens; exactly one of them."""

    audio: Audio | None = None  # a path, the bytes of a file, or samples float[T] or float[channels, T] in [-1, 1]
    sample_rate: int | None = None  # of samples, in hertz; 16 000 if not given. A file says its own
    units: Streams | None = None  # streams as :meth:`SpeechTokenizer.encode` gives them
    tokens: str | None = None  # a string such as ``[St3][Pi1][Hu7]``
    recording: NDArray[np.float32] | None = None  # of units: what they were made of, float32[T] at 16 kHz
    kind: ClassVar[Kind] = "speech"

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.audio, self.units, self.tokens)) != 1:
            raise SpiritLMError("Speech(…) takes one of audio, units and tokens")


@dataclass(frozen=True)
class Prompt:
    """A whole prompt as a string, markers and all, used as it is: ``Prompt("[Text]hello[Speech]")``."""

    string: str

    def __post_init__(self) -> None:
        """Raises SpiritLMError for what is no text."""
        _check_text(self.string)


def _check_text(text: object) -> None:
    if not isinstance(text, str) or (not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text)):
        raise SpiritLMError(f"a text is a string of Unicode characters, not {text!r:.60}")


@dataclass(frozen=True)
class TextSegment:
    """A stretch of text in an answer."""

    text: str
    kind: ClassVar[Kind] = "text"

    @property
    def content(self) -> str:
        """The text."""
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind, "text": self.text}


Synthesizer: TypeAlias = Callable[[str, "int | str | None"], NDArray[np.float32]]
"""Makes a waveform of speech tokens and a speaker (number or name), as :meth:`SpeechTokenizer.decode` does."""


@dataclass(frozen=True)
class SpeechSegment:
    """A stretch of speech in an answer."""

    tokens: str  # such as ``[St3][Pi1][Hu7]``, without those of the prompt
    continues: str = ""
    """The speech tokens at the end of the prompt, if this segment goes on with them; else empty. In a stream the first
    piece says it. A waveform is made of both and the front is cut off, see :func:`prompts.audible`."""
    first: bool = field(default=True, compare=False, repr=False)  # whether the segment opens the answer
    asked: bool = field(default=False, compare=False, repr=False)
    """Whether an answer in speech was asked for, and is heard however short it is."""
    voice: Synthesizer | None = field(default=None, compare=False, repr=False)
    """What makes the waveform; none in the pieces of a stream."""
    kind: ClassVar[Kind] = "speech"
    sample_rate: ClassVar[int] = SAMPLE_RATE  # of the waveform, in hertz

    @property
    def content(self) -> str:
        """The tokens."""
        return self.tokens

    @property
    def units(self) -> Streams:
        """Units, one entry of each stream per HuBERT token."""
        return from_string(self.tokens)

    def waveform(self, speaker: Speaker | None = None) -> NDArray[np.float32]:
        """What is heard, float32[samples] at 16 kHz, made anew at each call.

        Empty where the released code drops it: less than a second of new speech, unless speech was asked for, or it
        opens the answer and does not go on with the prompt's. The speaker is a number or name; the vocoder's default if
        not given.

        Raises SpiritLMError: there is no vocoder, it has no such voice, or it cannot make speech of these tokens (no
        HuBERT token; for an expressive one, no pitch token).
        """
        whole = self.continues + self.tokens
        place = {"first": self.first, "asked": self.asked}
        if audible(0, whole, self.continues, **place) is None:
            return np.zeros(0, np.float32)
        if self.voice is None:
            raise SpiritLMError("this segment has no voice: only the answers of SpiritLM.generate can be heard")
        samples = self.voice(whole, speaker)
        heard = audible(len(samples), whole, self.continues, **place)
        return samples[:0] if heard is None else samples[heard.start :]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        streams = {name: getattr(self.units, name) for name in ("hubert", "pitch", "style")}
        units = {name: None if found is None else found.tolist() for name, found in streams.items()}
        return {"kind": self.kind, "tokens": self.tokens, "units": units, "continues": self.continues}


Segment: TypeAlias = TextSegment | SpeechSegment
Content: TypeAlias = Text | Speech
Input: TypeAlias = Any
"""A part of a prompt: `Text` or `Speech`, a segment of an answer, a str (text), a Path or bytes (a recording), samples
(array or tensor, 16 kHz), units, or a pair ``("text", …)``, ``("speech", …)``."""


def voiced(segments: Iterable[Segment], voice: Synthesizer, *, asked: bool) -> tuple[Segment, ...]:
    """The segments of an answer, with what makes their waveforms; `asked`: whether they were to be speech."""
    return tuple(
        replace(segment, first=not index, asked=asked, voice=voice) if isinstance(segment, SpeechSegment) else segment
        for index, segment in enumerate(segments)
    )


NOTHING_SAID = "there is no speech in the recording: it is silent throughout"
_EMPTY = {
    "eos": "the answer is empty: to end at once is what the model finds most likely here",
    "stop": "the answer is empty: the model turned to the other modality at once",
    "length": "the answer is empty: there was no room for any token",
    "silence": NOTHING_SAID,
    "blank": "the answer is empty: the model wrote white space only",
}


@dataclass(frozen=True)
class Answer(Sequence[Segment]):
    """What a model made of a prompt: a sequence of segments."""

    segments: tuple[Segment, ...]  # neighbours differ in kind
    prompt_ids: tuple[int, ...]  # what the model was given
    ids: tuple[int, ...]  # what it added, without what ended it
    finish: Finish  # ``eos``, ``stop`` (one of the stop tokens), ``length`` or ``silence``

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.segments)

    def __getitem__(self, index: Any) -> Any:
        """A segment, or several."""
        return self.segments[index]

    @property
    def empty(self) -> str | None:
        """Why there is nothing in it, as a sentence without its full stop; None if there is something."""
        if any(segment.content.strip() for segment in self.segments):
            return None
        return _EMPTY["blank" if self.ids else self.finish]

    @property
    def text(self) -> str:
        """All text of the answer."""
        return "".join(segment.text for segment in self.segments if isinstance(segment, TextSegment))

    @property
    def tokens(self) -> str:
        """All speech tokens of the answer."""
        return "".join(segment.tokens for segment in self.segments if isinstance(segment, SpeechSegment))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "segments": [segment.to_dict() for segment in self.segments],
            "finish": self.finish,
            "prompt_tokens": len(self.prompt_ids),
            "new_tokens": len(self.ids),
        }


def contents(inputs: Input | Iterable[Input]) -> list[Content]:
    """The parts of a prompt, each as `Text` or `Speech`; a part alone may stand for a list of one.

    Raises SpiritLMError: something is neither text nor speech.
    """
    if not isinstance(inputs, list | tuple | Iterator) or _is_pair(inputs):
        inputs = [inputs]
    return [_content(part) for part in inputs]


def _content(part: Input) -> Content:
    if isinstance(part, Text | Speech):
        return part
    if isinstance(part, TextSegment | str):
        return Text(part if isinstance(part, str) else part.text)
    if isinstance(part, SpeechSegment):
        return Speech(tokens=part.tokens)
    if _is_pair(part):
        return _pair(part[0].lower(), part[1])
    return _speech(part)


def _is_pair(part: Any) -> bool:
    return isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str) and part[0].lower() in _KINDS


_KINDS = ("text", "speech")


def _pair(kind: str, value: Any) -> Content:
    if kind == "speech":
        return value if isinstance(value, Speech) else _speech(value, tokens=True)
    if not isinstance(value, str):
        raise SpiritLMError(f"a prompt part ('text', …) needs a string, not {type(value).__name__}")
    return Text(value)


def _speech(value: Any, *, tokens: bool = False) -> Speech:
    if tokens and isinstance(value, str):
        return Speech(tokens=value)
    if hasattr(value, "hubert"):
        return Speech(units=value)
    if isinstance(value, os.PathLike | bytes) or hasattr(value, "__array__"):
        return Speech(audio=value)
    raise SpiritLMError(
        f"a prompt part is a string, a path, bytes, samples, units, Text(…), Speech(…), ('text', …) or ('speech', …), "
        f"not {value!r:.60}"
    )
