"""What requests ask of a model. Runs in the engine's thread; knows nothing of HTTP connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.content import Answer, Content, Segment, Speech, SpeechSegment, Text
from spiritlm_core.lm.presets import Task, ask, ask_stream, classify, encoded, prompt_length, spoken, whole
from spiritlm_core.serve.errors import RequestError, invalid
from spiritlm_core.serve.recordings import Recordings
from spiritlm_core.serve.schema import (
    Asked,
    AudioPart,
    ClassifyRequest,
    ClassifyResponse,
    GenerateRequest,
    Part,
    SayRequest,
    Shot,
    TextPart,
    TokenizeRequest,
    TranscribeRequest,
    UnitsPart,
    Voice,
)
from spiritlm_core.serve.settings import ServeConfig

if TYPE_CHECKING:
    from spiritlm_core.lm.spirit import Generation, SpiritLM
    from spiritlm_core.units.types import Units

SILENT = "this model has no vocoder, so its speech cannot be heard: what you see are its tokens"


@dataclass(frozen=True)
class Heard:
    """A segment of an answer, with what is heard of it.

    Attributes:
        segment: text or speech.
        waveform: float32[samples] at 16 kHz, of speech that can be heard.
        silent: why speech cannot be heard.
    """

    segment: Segment
    waveform: NDArray[np.float32] | None = None
    silent: str | None = None


@dataclass(frozen=True)
class Reply:
    """An answer with its sound.

    Attributes:
        segments: neighbours differ in kind.
        answer: the same without sound, and what ended it; none at the end of a stream.
    """

    segments: tuple[Heard, ...]
    answer: Answer | None = None

    @property
    def waveform(self) -> NDArray[np.float32] | None:
        """All that is heard, float32[samples] at 16 kHz; None if that is nothing."""
        heard = [segment.waveform for segment in self.segments if segment.waveform is not None]
        return np.concatenate(heard) if heard else None


@dataclass(frozen=True)
class Recording:
    """A recording of a request.

    Attributes:
        waveform: float32[samples] at 16 kHz.
        hubert: its units, int[frames of 40 ms].
    """

    waveform: NDArray[np.float32]
    hubert: NDArray[np.integer]


@dataclass(frozen=True)
class Asking:
    """One request, and what it may use.

    Attributes:
        spirit: the model.
        config: the limits.
        files: uploaded files by the name of their field.
        recordings: those of the request, in the order in which they are shown to the model; filled as it is answered.
    """

    spirit: SpiritLM
    config: ServeConfig
    files: dict[str, bytes] = field(default_factory=dict)
    recordings: list[Recording] = field(default_factory=list)

    def generate(self, request: GenerateRequest) -> Reply:
        """Continue a prompt."""
        self._check_asked_voice(request)
        parts, options = self._prepared(request, request.parts, request.output)
        (answer,) = ask(self.spirit, "free", [parts], request.output, **options)
        return Reply(self._heard(answer, request, wanted=request.wav), answer)

    def stream(self, request: GenerateRequest) -> Iterator[Segment | Reply]:
        """Continue a prompt piece by piece; the last item is the whole."""
        self._check_asked_voice(request)
        parts, options = self._prepared(request, request.parts, request.output)
        pieces = []
        for piece in ask_stream(self.spirit, "free", parts, request.output, **options):
            pieces.append(piece)
            yield piece
        yield Reply(self._heard(whole(pieces), request, wanted=request.wav))

    def transcribe(self, request: TranscribeRequest) -> Answer:
        """Write a recording down."""
        return self._task("asr", request, [request.audio], "audio")

    def say(self, request: SayRequest) -> Reply:
        """Say a text.

        Raises:
            RequestError: a WAV file is asked for, and there is no vocoder, or nothing that can be heard.
        """
        if request.format == "wav" and not speaks(self.spirit):
            raise RequestError(400, "no_vocoder", f"{SILENT}; format json gives them", "format")
        self._check_voice(request)
        answer = self._task("tts", request, [TextPart(text=request.text)], "text")
        reply = Reply(self._heard(answer, request, wanted=True), answer)
        if request.format == "wav" and reply.waveform is None:
            raise RequestError(400, "silent", "the model answered with nothing that can be heard", "text")
        return reply

    def classify(self, request: ClassifyRequest) -> ClassifyResponse:
        """Choose a label."""
        recordings = Recordings(self.files, self.config.max_seconds)
        shots = self._shots(recordings, request.shots)
        question = self._contents(recordings, request.parts, "parts")
        self._check_prompt(question, "text", shots)
        found = classify(self.spirit, question, request.labels, shots)
        return ClassifyResponse(
            model=request.model or "",
            label=found.label,
            probabilities=dict(zip(found.labels, found.probabilities.tolist(), strict=True)),
            nats=dict(zip(found.labels, found.nats.tolist(), strict=True)),
        )

    def tokenize(self, request: TokenizeRequest) -> tuple[str, Units]:
        """Speech tokens and units of a recording."""
        waveform = Recordings(self.files, self.config.max_seconds).waveform(request.audio, "audio")
        tokenizer = self.spirit.speech_tokenizer
        units = tokenizer.encode(waveform)
        return tokenizer.to_string(units), units

    def _task(self, task: Task, request: Asked, parts: Sequence[Part], name: str) -> Answer:
        output = "text" if task == "asr" else "speech"
        question, options = self._prepared(request, parts, output, name)
        (answer,) = ask(self.spirit, task, [question], **options)
        return answer

    def _prepared(
        self, request: Asked, parts: Sequence[Part], output: str, name: str = "parts"
    ) -> tuple[list[Content], Generation]:
        """The prompt's parts with units in place of recordings, and the options; checked against the limits."""
        limit = self.config.max_new_tokens
        most = request.max_new_tokens or min(limit, 400 if isinstance(request, SayRequest) else 200)
        if most > limit:
            raise invalid(f"at most {limit} new tokens may be asked for", "max_new_tokens")
        recordings = Recordings(self.files, self.config.max_seconds)
        shots = self._shots(recordings, request.shots)
        question = self._contents(recordings, parts, name)
        self._check_prompt(question, output, shots)
        names = ("temperature", "top_p", "top_k", "seed")
        options: dict[str, Any] = {option: getattr(request, option) for option in names}
        return question, {**options, "max_new_tokens": most, "shots": shots}  # type: ignore[typeddict-item]

    def _shots(self, recordings: Recordings, shots: Sequence[Shot]) -> list[tuple[list[Content], list[Content]]]:
        return [
            (
                self._contents(recordings, shot.question, f"shots.{i}.question"),
                self._contents(recordings, shot.answer, f"shots.{i}.answer"),
            )
            for i, shot in enumerate(shots)
        ]

    def _contents(self, recordings: Recordings, parts: Sequence[Part], name: str) -> list[Content]:
        several = name.startswith("shots") or name == "parts"
        return [self._content(recordings, part, f"{name}.{i}" if several else name) for i, part in enumerate(parts)]

    def _content(self, recordings: Recordings, part: Part, name: str) -> Content:
        if isinstance(part, TextPart):
            return Text(part.text)
        try:
            if isinstance(part, AudioPart):
                return self._encoded(recordings.waveform(part, name))
            self.spirit.speech_ids(part.tokens)
        except RequestError:
            raise
        except SpiritLMError as error:
            raise RequestError(400, _kind(part, error), str(error), name) from error
        return Speech(tokens=part.tokens)

    def _encoded(self, waveform: NDArray[np.float32]) -> Content:
        (content,) = encoded(self.spirit, Speech(audio=waveform))
        if isinstance(content, Speech) and content.units is not None:
            self.recordings.append(Recording(waveform, np.asarray(content.units.hubert)))
        return content

    def _check_prompt(self, question: list[Content], output: str, shots: Any) -> None:
        length, limit = prompt_length(self.spirit, question, output, shots), self.config.token_limit
        if limit is not None and length > limit:
            raise RequestError(400, "too_long", f"the prompt has {length} tokens, {limit} are allowed: shorten it")

    def _check_asked_voice(self, request: GenerateRequest) -> None:
        if request.wav and request.output != "text":
            self._check_voice(request)

    def _check_voice(self, voice: Voice) -> None:
        """A voice is refused before the model thinks; without a vocoder there is none to refuse."""
        if not speaks(self.spirit):
            return
        try:
            self.spirit.speech_tokenizer.vocoder.voice(voice.speaker, voice.expression)
        except SpiritLMError as error:
            raise RequestError(400, "no_such_voice", str(error), "speaker") from error

    def _heard(self, segments: Sequence[Segment] | Answer, voice: Voice, *, wanted: bool) -> tuple[Heard, ...]:
        return tuple(self._one(segment, voice, wanted=wanted) for segment in segments)

    def _one(self, segment: Segment, voice: Voice, *, wanted: bool) -> Heard:
        if not isinstance(segment, SpeechSegment) or not wanted:
            return Heard(segment)
        if not speaks(self.spirit):
            return Heard(segment, silent=SILENT)
        try:
            waveform = spoken(self.spirit, segment, voice.speaker, voice.expression)
        except SpiritLMError as error:
            return Heard(segment, silent=str(error))
        return Heard(segment, waveform) if len(waveform) else Heard(segment, silent="too short to be heard")


def hears(spirit: SpiritLM) -> bool:
    """Whether recordings can be given."""
    return _has(lambda: spirit.speech_tokenizer)


def speaks(spirit: SpiritLM) -> bool:
    """Whether speech can be heard."""
    return _has(lambda: spirit.speech_tokenizer) and spirit.speech_tokenizer.has_vocoder


def _has(load: Callable[[], object]) -> bool:
    try:
        load()
    except ModelReferenceError:
        return False
    return True


def _kind(part: AudioPart | UnitsPart, error: SpiritLMError) -> str:
    if isinstance(error, ModelReferenceError):
        return "no_speech_tokenizer"
    return "bad_audio" if isinstance(part, AudioPart) else "bad_tokens"
