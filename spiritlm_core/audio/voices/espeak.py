"""The formant synthesizer eSpeak NG from the wheel `espeakng-loader`, through its C interface (``speak_lib.h``).

It seeds its noise with the time, so that the same sentence sounds a little different every time: here it is seeded
with a constant, and the sound depends on text, voice, rate, pitch and range alone. It tells when a word begins.
"""

import bisect
import ctypes
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spiritlm_core.audio.voices.server import Answer, Speaker
from spiritlm_core.audio.voices.sound import NothingHeardError, Sound, Time
from spiritlm_core.errors import SpiritLMError

_SYNCHRONOUS, _UTF8, _CHARACTERS = 2, 1, 1  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_UTF8, POS_CHARACTER
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeakRATE, espeakPITCH, espeakRANGE
_SEED = 1  # of the noise of breathy voices; any
_PHONEMES = 1  # espeakINITIALIZE_PHONEME_EVENTS
_LAST, _WORD, _PHONEME = 0, 1, 7  # espeakEVENT_LIST_TERMINATED, …_WORD, …_PHONEME
_PAUSE = b"_"  # phonemes that begin so are silence


class _Event(ctypes.Structure):
    """``espeak_EVENT``: what begins at a sample of the sound."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("position", ctypes.c_int),  # of a word in the text, in characters from 1
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)  # samples, how many, events


@dataclass(frozen=True)
class Voice:
    """How a sentence is spoken."""

    name: str  # of eSpeak NG, such as ``en-us``, or with a variant, ``en-us+f3``
    rate: int = 150  # words per minute, 80 to 450
    pitch: int = 50  # base pitch, 0 to 99; 50 is the voice's own
    range: int = 50  # how far the pitch moves, 0 (monotone) to 99; 50 is the voice's own


class Espeak(Speaker):
    """Speaks; a context manager that ends its server.

    Raises:
        SpiritLMError: when called: the wheel is absent or damaged, the voice is unknown or the text cannot be spoken.
    """

    def __init__(self) -> None:
        super().__init__("espeak", "espeakng_loader")

    def __call__(self, text: str, voice: Voice | str, path: Path) -> None:
        """Write `text` to `path` as WAV, 22 050 Hz, 16 bit."""
        spoken = voice if isinstance(voice, Voice) else Voice(voice)
        sound = self.say(text, spoken.name, {name: getattr(spoken, name) for name in ("rate", "pitch", "range")})
        soundfile.write(path, sound.samples, sound.rate)


def load() -> Answer:
    """What answers requests with the keys `text`, `voice`, `rate`, `pitch` and `range`."""
    library = _Library()

    def answer(request: dict[str, Any]) -> Sound:
        drawn = (int(request[name]) for name in ("rate", "pitch", "range"))
        return library.speak(str(request["text"]), Voice(str(request["voice"]), *drawn))

    return answer


class _Library:
    """The shared library, loaded and initialized, but not yet used."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._data = Path(espeakng_loader.get_data_path())
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(self._data), _PHONEMES))
        if self.rate <= 0:
            raise SpiritLMError(f"eSpeak NG does not find its data in {self._data}")
        self._library.espeak_ListVoices(None)  # reads every voice's file now; else each copy of this process would
        self._parts: list[bytes] = []
        self._words: list[tuple[int, float]] = []  # position in the text, from 0, and second where it begins
        self._pauses: list[float] = []  # seconds where one begins
        self._callback = _CALLBACK(self._take)  # kept: the library holds a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._parts.append(ctypes.string_at(samples, 2 * count))
        for event in itertools.takewhile(lambda event: event.type != _LAST, map(events.__getitem__, itertools.count())):
            if event.type == _WORD:
                self._words.append((event.position - 1, event.sample / self.rate))
            elif event.type == _PHONEME and event.phoneme.startswith(_PAUSE):
                self._pauses.append(event.sample / self.rate)
        return 0

    def speak(self, text: str, voice: Voice) -> Sound:
        """`text`, with the times of its words. Raises SpiritLMError."""
        variant = voice.name.partition("+")[2]  # the library passes over one that it does not know
        known = not variant or (self._data / "voices" / "!v" / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise SpiritLMError("there is no such voice")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        failed = self._library.espeak_Synth(data, size, 0, _CHARACTERS, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if failed:
            raise SpiritLMError(f"error {failed}")
        if not any(map(any, self._parts)):
            raise NothingHeardError("nothing is heard")
        samples = np.frombuffer(b"".join(self._parts), np.int16)
        return Sound(samples, self.rate, _times(text, self._words, self._pauses, len(samples) / self.rate))


def _times(
    text: str, words: Sequence[tuple[int, float]], pauses: Sequence[float], duration: float
) -> list[Time | None]:
    """When each word of `text`, parted at white space, is said; None for one that is joined to the word before it.

    It is said from the first sound that begins in it until the next word or a pause begins.
    """
    begun: dict[int, float] = {}
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    for position, second in words:
        begun.setdefault(bisect.bisect_right(ends, position), second)
    after = sorted([*begun.values(), *pauses, duration])
    return [
        (start, after[bisect.bisect_right(after, start)]) if (start := begun.get(number)) is not None else None
        for number in range(len(ends))
    ]
