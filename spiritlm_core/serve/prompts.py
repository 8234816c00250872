"""Parts of a request to the parts of a prompt, within the limits: recordings are decoded and become units."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.config import LimitsConfig
from spiritlm_core.audio.decode import TooLong
from spiritlm_core.audio.waveform import read_waveform
from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.content import Content, Speech, Text
from spiritlm_core.lm.generate.presets import encoded, prompt_length
from spiritlm_core.serve.errors import RequestError, invalid
from spiritlm_core.serve.schema import AudioPart, Part, Shot, TextPart, UnitsPart
from spiritlm_core.serve.settings import ServeConfig
from spiritlm_core.speech.grid import hop_of
from spiritlm_core.speech.types import by_frame

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM

_LIMITS = LimitsConfig(max_channels=2, max_rate=192_000)
_URL = re.compile(r"data:.{0,1000}?;\s*base64,", re.IGNORECASE | re.DOTALL)
_SAFE = str.maketrans("-_", "+/")
SolvedExample = tuple[list[Content], list[Content]]


@dataclass(frozen=True)
class Recording:
    """A recording of a request.

    Attributes:
        waveform: float32[samples] at 16 kHz.
        hubert: its units, int[frames of 40 ms].
    """

    waveform: NDArray[np.float32]
    hubert: NDArray[np.integer]


class Recordings:
    """Decodes the recordings of one request, uploaded or in it, unless they last more than `seconds` together."""

    def __init__(self, files: Mapping[str, bytes], seconds: float) -> None:
        self._files, self._most, self._left = files, seconds, seconds

    def waveform(self, part: AudioPart, field: str) -> NDArray[np.float32]:
        """float32[samples] at 16 kHz.

        Raises:
            RequestError: there is no such file, it is no recording, or it is too long; `field` is named.
        """
        data = self._bytes(part, field)
        limits = _LIMITS.model_copy(update={"max_hours": self._left / 3600})
        try:
            waveform = read_waveform(io.BytesIO(data), "the recording", limits=limits)
        except TooLong as error:
            message = f"recordings of a request may last {self._most:g} s together: send a shorter one"
            raise RequestError(413, "too_long", message, field) from error
        except Rejection as error:
            raise RequestError(400, "bad_audio", f"the recording cannot be used: {error}", field) from error
        self._left -= len(waveform) / SAMPLE_RATE
        return waveform

    def _bytes(self, part: AudioPart, field: str) -> bytes:
        if part.file is not None:
            if part.file not in self._files:
                raise invalid(f"the request has no file {part.file!r:.60}", field)
            return self._files[part.file]
        return _from_base64(part.data or "", field)


class PromptReader:
    """Reads the parts of one request; recordings become units.

    Attributes:
        audio: decodes the recordings.
        recordings: those that were shown to the model, in their order.
    """

    def __init__(self, spirit: SpiritLM, config: ServeConfig, files: dict[str, bytes]) -> None:
        self._spirit, self._most = spirit, config.token_limit
        self.audio = Recordings(files, config.max_seconds)
        self.recordings: list[Recording] = []

    def prompt(
        self, question: Sequence[tuple[str, Part]], shots: Sequence[Shot], output: str
    ) -> tuple[list[Content], list[SolvedExample]]:
        """A question, each part with the name of its field, and the solved examples in front of it.

        Raises:
            RequestError: a part cannot be used, or the whole is too long.
        """
        solved = [
            (
                [self._content(part, field) for field, part in numbered(f"shots.{i}.question", shot.question)],
                [self._content(part, field) for field, part in numbered(f"shots.{i}.answer", shot.answer)],
            )
            for i, shot in enumerate(shots)
        ]
        asked = [self._content(part, field) for field, part in question]
        length = prompt_length(self._spirit, asked, output, solved)
        if self._most is not None and length > self._most:
            raise RequestError(400, "too_long", f"the prompt has {length} tokens, {self._most} are allowed: shorten it")
        return asked, solved

    def _content(self, part: Part, field: str) -> Content:
        if isinstance(part, TextPart):
            return Text(part.text)
        try:
            if isinstance(part, AudioPart):
                return self._encoded(self.audio.waveform(part, field))
            self._spirit.speech_ids(part.tokens)
        except RequestError:
            raise
        except SpiritLMError as error:
            raise RequestError(400, _kind(part, error), str(error), field) from error
        return Speech(tokens=part.tokens)

    def _encoded(self, waveform: NDArray[np.float32]) -> Content:
        (content,) = encoded(self._spirit, Speech(audio=waveform))
        if isinstance(content, Speech) and content.units is not None:
            hubert = np.asarray(content.units.hubert)
            hubert = by_frame(hubert, len(waveform), hop_of(len(hubert), len(waveform)))
            self.recordings.append(Recording(waveform, hubert))
        return content


def numbered(field: str, parts: Sequence[Part]) -> list[tuple[str, Part]]:
    """The parts of a list, each with its name."""
    return [(f"{field}.{i}", part) for i, part in enumerate(parts)]


def _kind(part: AudioPart | UnitsPart, error: SpiritLMError) -> str:
    if isinstance(error, ModelReferenceError):
        return "no_speech_tokenizer"
    return "bad_audio" if isinstance(part, AudioPart) else "bad_tokens"


def _from_base64(text: str, field: str) -> bytes:
    """Bytes of base64, also in many lines and with the alphabet of URLs, or of a ``data:`` URL. Raises RequestError."""
    text = text.strip()
    url = _URL.match(text)
    body = unquote(text[url.end() :]) if url else text
    if "," in body:
        raise invalid("data is base64, or a URL data:…;base64,…", field)
    try:
        return base64.b64decode("".join(body.split()).translate(_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"data is not base64: {error}", field) from error
