"""What requests ask of a model. Runs in the engine's thread; knows nothing of HTTP connections."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.content import Answer, Content, Segment
from spiritlm_core.lm.generate.presets import OUTPUTS, Classification, Task, ask, ask_stream, check_labels, classify
from spiritlm_core.lm.generate.speaking import SILENT, Heard, Sound, Voice, hear, hear_stream, speaks
from spiritlm_core.serve.errors import RequestError, invalid
from spiritlm_core.serve.prompts import PromptReader, numbered
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.schema import (
    ClassifyRequest,
    GenerateRequest,
    Part,
    SayRequest,
    TaskRequest,
    TextPart,
    TokenizeRequest,
    TranscribeRequest,
    VoiceOptions,
)
from spiritlm_core.serve.settings import ServeConfig

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM
    from spiritlm_core.speech.types import Units


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

        Raises:
            RequestError: something in the request cannot be used; so for all of these methods.
        """
        voice = self._wanted_voice(request)
        question, options = self._prepared(request, numbered("parts", request.parts), request.output)
        (answer,) = ask(self.spirit, "free", [question], request.output, **options)
        return Reply(tuple(map(Heard, answer)) if voice is None else hear(self.spirit, answer, voice), answer)

    def stream(self, request: GenerateRequest, give: Callable[[Segment | Sound], None]) -> Reply:
        """Continue a prompt, and hand on each piece of it, and what can be heard of it, at once."""
        voice = self._wanted_voice(request)
        question, options = self._prepared(request, numbered("parts", request.parts), request.output)
        pieces = _Kept(ask_stream(self.spirit, "free", question, request.output, **options))
        heard = hear_stream(self.spirit, pieces, give, voice)
        return Reply(heard, pieces.answer)

    def transcribe(self, request: TranscribeRequest) -> Answer:
        """Write a recording down."""
        return self._task("asr", request, [("audio", request.audio)])

    def say(self, request: SayRequest) -> Reply:
        """Say a text; a WAV file is refused where there is no vocoder, or nothing that can be heard."""
        if request.format == "wav" and not speaks(self.spirit):
            raise RequestError(400, "no_vocoder", f"{SILENT}; format json gives them", "format")
        voice = self._voice(request)
        answer = self._task("tts", request, [("text", TextPart(text=request.text))])
        reply = Reply(hear(self.spirit, answer, voice), answer)
        if request.format == "wav" and reply.waveform is None:
            raise RequestError(400, "silent", "the model answered with nothing that can be heard", "text")
        return reply

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

    def _task(self, task: Task, request: TaskRequest, question: list[tuple[str, Part]]) -> Answer:
        asked, options = self._prepared(request, question, OUTPUTS[task])
        (answer,) = ask(self.spirit, task, [asked], **options)
        return answer

    def _prepared(
        self, request: TaskRequest, question: list[tuple[str, Part]], output: str
    ) -> tuple[list[Content], dict[str, Any]]:
        limit = self._config.max_new_tokens
        most = request.max_new_tokens or min(limit, request.usual_tokens)
        if most > limit:
            raise invalid(f"at most {limit} new tokens may be asked for", "max_new_tokens")
        asked, shots = self._reader.prompt(question, request.shots, output)
        return asked, {
            "max_new_tokens": most,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "seed": request.seed,
            "shots": shots,
        }

    def _wanted_voice(self, request: GenerateRequest) -> Voice | None:
        """None if only tokens are wanted."""
        return self._voice(request) if request.wav and request.output != "text" else None

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
        """The pieces."""
        self.answer: Answer = yield from self._pieces
