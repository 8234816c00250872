"""What requests ask of a model, and prompts read from them. Runs in the engine's thread; knows no HTTP connections."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.config import LimitsConfig
from spiritlm_core.audio.decode import TooLong
from spiritlm_core.audio.waveform import read_waveform
from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.content import Answer, Content, Segment, Speech, Text
from spiritlm_core.lm.generate.presets import (
    Classification,
    Task,
    ask,
    ask_stream,
    check_labels,
    classify,
    encoded,
    prompt_length,
)
from spiritlm_core.lm.generate.prompts import Modality
from spiritlm_core.lm.generate.speaking import SILENT, Heard, Sound, Voice, hear, hear_stream, speaks
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.errors import RequestError, ServeConfig, invalid, silent
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.schema import (
    AudioPart,
    ClassifyRequest,
    GenerateRequest,
    Part,
    Sampling,
    SayRequest,
    Shot,
    TaskRequest,
    TextPart,
    TokenizeRequest,
    TranscribeRequest,
    UnitsPart,
    VoiceOptions,
)
from spiritlm_core.speech.grid import hop_of
from spiritlm_core.speech.types import Units, by_frame

_LIMITS = LimitsConfig(max_channels=2, max_rate=192_000)
_URL = re.compile(r"data:.{0,1000}?;\s*base64,", re.IGNORECASE | re.DOTALL)
_SAFE = str.maketrans("-_", "+/")
AnswerRequest = GenerateRequest | TranscribeRequest | SayRequest
SolvedExample = tuple[list[Content], list[Content]]


@dataclass(frozen=True)
class Recording:
    """A recording of a request."""

    waveform: NDArray[np.float32]  # float32[samples] at 16 kHz
    hubert: NDArray[np.integer]  # its units, int[frames of 40 ms]


class Recordings:
    """Decodes the recordings of one request, uploaded or in it, unless they last more than `seconds` together."""

    def __init__(self, files: Mapping[str, bytes], seconds: float) -> None:
        self._files, self._most, self._left = files, seconds, seconds

    def waveform(self, part: AudioPart, field: str) -> NDArray[np.float32]:
        """float32[samples] at 16 kHz.

        Raises RequestError: there is no such file, it is no recording, or it is too long; `field` is named.
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

        Raises RequestError: a part cannot be used, or the whole is too long.
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
            self._spirit.layout.speech_ids(part.tokens)
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


class RequestHandler:
    """Answers one request, whose uploaded `files` go by the names of their fields.

    Attributes:
        recordings: in the order in which they were shown to the model; known once the request is answered.
    """

    def __init__(self, spirit: SpiritLM, config: ServeConfig, files: dict[str, bytes] | None = None) -> None:
        self.spirit, self._config = spirit, config
        self._reader = PromptReader(spirit, config, files or {})
        self.recordings = self._reader.recordings

    def generate(self, request: GenerateRequest) -> Reply:
        """Continue a prompt.

        Raises RequestError: something in the request cannot be used; so for all of these methods.
        """
        return self._whole(request)

    def transcribe(self, request: TranscribeRequest) -> Answer:
        """Write a recording down."""
        return self._whole(request, hearings=request.hearings).answer

    def say(self, request: SayRequest) -> Reply:
        """Say a text; a WAV file is refused where there is no vocoder, or nothing that can be heard."""
        reply = self._whole(request)
        if request.format == "wav" and reply.waveform is None:
            raise silent()
        return reply

    def stream(self, request: AnswerRequest, give: Callable[[Segment | Sound], None]) -> Reply:
        """Answer, and hand on each piece of the answer, and what can be heard of it, at once."""
        task, asked, output, options, voice = self._wanted(request)
        pieces = _Kept(ask_stream(self.spirit, task, asked, output, **options))
        return Reply(hear_stream(self.spirit, pieces, give, voice), pieces.answer)

    def aloud(self, request: GenerateRequest, give: Callable[[Segment | Sound], None]) -> Reply:
        """Write an answer, then say it: the chain of modality of SpeechGPT (arXiv 2305.11000, section 3)."""
        self._audible(request)
        written = self.stream(request.model_copy(update={"output": "text"}), give)
        if not (text := written.answer.text):
            return written
        options = request.model_dump(include={*Sampling.model_fields, *VoiceOptions.model_fields, "model"})
        return written.followed_by(self.stream(SayRequest(text=text, **options), give))

    def _whole(self, request: AnswerRequest, **more: int) -> Reply:
        task, asked, output, options, voice = self._wanted(request)
        (answer,) = ask(self.spirit, task, [asked], output, **options, **more)
        return Reply(tuple(map(Heard, answer)) if voice is None else hear(self.spirit, answer, voice), answer)

    def _wanted(self, request: AnswerRequest) -> tuple[Task, list[Content], Modality, dict[str, Any], Voice | None]:
        """Task, question, modality and sampling of the answer, and the voice; None if only tokens are wanted."""
        if isinstance(request, TranscribeRequest):
            return "asr", *self._prepared(request, [("audio", request.audio)], "text"), None
        if isinstance(request, GenerateRequest):
            voice = self._voice(request) if request.wav and request.output != "text" else None
            return "free", *self._prepared(request, numbered("parts", request.parts), request.output), voice
        voice = self._audible(request) if request.format == "wav" else self._voice(request)
        return "tts", *self._prepared(request, [("text", TextPart(text=request.text))], "speech"), voice

    def classify(self, request: ClassifyRequest) -> Classification:
        """Choose a label."""
        try:
            check_labels([self.spirit.layout.known(label) for label in request.labels])
        except SpiritLMError as error:
            raise RequestError(400, "bad_request", str(error), "labels") from error
        question, shots = self._reader.prompt(numbered("parts", request.parts), request.shots, "text")
        return classify(self.spirit, question, request.labels, shots)

    def tokenize(self, request: TokenizeRequest) -> tuple[str, Units]:
        """Speech tokens and units of a recording."""
        try:
            tokenizer = self.spirit.speech_tokenizer
        except ModelReferenceError as error:
            raise RequestError(400, "no_speech_tokenizer", str(error), "audio") from error
        units = tokenizer.encode(self._reader.audio.waveform(request.audio, "audio"))
        return tokenizer.to_string(units), units

    def _prepared(
        self, request: TaskRequest, question: list[tuple[str, Part]], output: Modality
    ) -> tuple[list[Content], Modality, dict[str, Any]]:
        limit = self._config.max_new_tokens
        most = request.max_new_tokens or min(limit, request.usual_tokens)
        if most > limit:
            raise invalid(f"at most {limit} new tokens may be asked for", "max_new_tokens")
        asked, shots = self._reader.prompt(question, request.shots, output)
        sampling = request.model_dump(include={"temperature", "top_p", "top_k", "seed"})
        return asked, output, {"max_new_tokens": most, "shots": shots, **sampling}

    def _audible(self, options: VoiceOptions) -> Voice:
        if not speaks(self.spirit):
            raise RequestError(400, "no_vocoder", f"{SILENT}; format json gives them", "format")
        return self._voice(options)

    def _voice(self, options: VoiceOptions) -> Voice:
        """A voice is refused before the model thinks; without a vocoder there is none to refuse."""
        for field in ("speaker", "expression") if speaks(self.spirit) else ():
            try:
                self.spirit.speech_tokenizer.vocoder.voice(**{field: getattr(options, field)})
            except SpiritLMError as error:
                raise RequestError(400, "no_such_voice", str(error), field) from error
        return Voice(options.speaker, options.expression)


class _Kept:
    """The pieces of a stream, and behind them the whole answer."""

    def __init__(self, pieces: Generator[Segment, None, Answer]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[Segment]:
        self.answer: Answer = yield from self._pieces
