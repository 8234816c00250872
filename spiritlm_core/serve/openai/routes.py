"""The routes of OpenAI's HTTP interface: chat, transcriptions and speech, for clients that are told another address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.speaking import Sound, speaks
from spiritlm_core.serve.asking import Asking, Give, Piece
from spiritlm_core.serve.body import read, read_form, validated
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError, ServeConfig, silent
from spiritlm_core.serve.openai.schema import (
    VOICES,
    ChatRequest,
    OpenAIRequest,
    SpeechRequest,
    TranscriptionRequest,
    own_model,
    sampling_of,
)
from spiritlm_core.serve.openai.transcripts import Transcript, WordTimes, check_wanted
from spiritlm_core.serve.openai.writing import ChatChunks, SpeechEvents, SpeechFile, TranscriptEvents, completion
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.schema import GenerateRequest, SayRequest, TranscribeRequest
from spiritlm_core.serve.service import RequestHandler

REFERENCE = "#/components/schemas/{model}"


class OpenAIRoutes(Asking):
    """The routes; what is asked of them becomes requests of this server's own."""

    def __init__(self, engine: Engine, config: ServeConfig) -> None:
        super().__init__(engine, config)
        self._times = WordTimes(config.aligner) if config.aligner else None
        self._since = int(time.time())

    def add(self, app: FastAPI, errors: dict[int | str, dict[str, Any]]) -> None:
        """Add the routes to `app`, in whose description they fail with `errors`."""
        how: dict[str, Any] = {"tags": ["OpenAI"], "response_model": None}
        app.get("/v1/models", **how)(self.models)
        app.get("/v1/models/{model:path}", **how)(self.model)
        app.post("/v1/chat/completions", responses=errors, openapi_extra=_takes(ChatRequest), **how)(self.chat)
        app.post("/v1/audio/speech", responses=errors, openapi_extra=_takes(SpeechRequest), **how)(self.speech)
        app.post("/v1/audio/transcriptions", responses=errors, openapi_extra=_takes_form(), **how)(self.transcriptions)

    async def models(self) -> dict[str, Any]:
        """The models that are served, as OpenAI lists its own."""
        return {"object": "list", "data": [await self.model(name) for name in self.engine.models]}

    async def model(self, model: str) -> dict[str, Any]:
        """One of the models; the first for the names of OpenAI's models, as when it is asked."""
        return {
            "id": self.engine.name(own_model(model)),
            "object": "model",
            "created": self._since,
            "owned_by": "spiritlm",
        }

    async def chat(self, request: Request) -> Any:
        """Go on with a conversation of texts and recordings, in text, in speech, or written and then said.

        The contents of all messages, in order, are the prompt. Speech of earlier answers is given by its id.
        """
        with ExitStack() as held:
            held.enter_context(self.engine.place())
            asked, _ = await read(request, ChatRequest, self.config)
            spoken = asked.audio.kind if "audio" in asked.modalities else None
            wanted, places = self._chat(asked)
            name = self.engine.name(asked.own_model)
            with _renamed(places, asked):
                if asked.stream:
                    options = asked.stream_options
                    how = ChatChunks(name, spoken, with_usage=options is not None and options.include_usage)
                    return await self.streamed(asked.own_model, {}, wanted, how, held.pop_all())
                reply = await self.done(request, asked.own_model, {}, lambda handler: wanted(handler, _ignored))
        return completion(reply, name, spoken)

    async def speech(self, request: Request) -> Any:
        """Say a text; the file comes while it is made."""
        with ExitStack() as held:
            held.enter_context(self.engine.place())
            asked, _ = await read(request, SpeechRequest, self.config)
            voice = asked.voice.get("id", "") if isinstance(asked.voice, dict) else asked.voice
            values = {"text": asked.input, "speaker": self._speaker(voice, asked), **sampling_of(asked)}
            wanted = validated(SayRequest, values)
            events = asked.stream_format == "sse"
            how = (SpeechEvents if events else SpeechFile)(asked.response_format)
            return await self.streamed(
                asked.own_model, {}, lambda handler, give: handler.stream(wanted, give), how, held.pop_all(), _is_heard
            )

    async def transcriptions(self, request: Request) -> Any:
        """Write down what is said in a recording: text, subtitles, or JSON with the times of words."""
        with ExitStack() as held:
            held.enter_context(self.engine.place())
            asked, files = await read_form(request, TranscriptionRequest, self.config)
            check_wanted(asked, self._times, self.engine.models[self.engine.name(asked.own_model)].languages)
            values = {"audio": {"kind": "audio", "file": "file"}, **sampling_of(asked)}
            wanted = validated(TranscribeRequest, values)
            if asked.stream:
                return await self.streamed(
                    asked.own_model,
                    files,
                    lambda handler, give: handler.stream(wanted, give),
                    TranscriptEvents(),
                    held.pop_all(),
                )

            def written(handler: RequestHandler) -> Response:
                answer = handler.transcribe(wanted)
                waveform = np.concatenate([recording.waveform for recording in handler.recordings])
                words = self._times.of(waveform, answer.text, asked.language) if self._times else None
                return Transcript(answer, len(waveform) / SAMPLE_RATE, words).response(asked)

            return await self.done(request, asked.own_model, files, written)

    def _chat(self, asked: ChatRequest) -> tuple[Callable[[RequestHandler, Give], Reply], list[str]]:
        """What to ask a model, and the places of its parts in the messages."""
        parts, places = asked.parts()
        spoken, written = "audio" in asked.modalities, "text" in asked.modalities
        most = asked.max_completion_tokens or asked.max_tokens
        sampling = sampling_of(asked, max_new_tokens=most)
        voice = {"speaker": self._speaker(asked.audio.voice, asked)} if spoken else {}
        output = "text" if written else "speech"
        with _renamed(places, asked):
            request = validated(GenerateRequest, {"parts": parts, "output": output, **sampling, **voice})

        def answered(handler: RequestHandler, give: Give) -> Reply:
            return (handler.aloud if spoken and written else handler.stream)(request, give)

        return answered, places

    def _speaker(self, voice: str | int, asked: OpenAIRequest) -> str | int | None:
        """The voice that is meant; None is the default, which also speaks for OpenAI's voices."""
        spirit = self.engine.models[self.engine.name(asked.own_model)]
        names = spirit.speech_tokenizer.vocoder.config.speaker_names if speaks(spirit) else ()
        return None if voice in VOICES and voice not in names else voice


def _ignored(_: Any) -> None:
    """For answers that are waited for as a whole."""


def _is_heard(piece: Piece) -> bool:
    """Whether the answer begins to be heard. Raises RequestError: it is over, and was not."""
    if isinstance(piece, Reply):
        raise silent()
    return isinstance(piece, Sound)


@contextmanager
def _renamed(places: list[str], asked: ChatRequest) -> Iterator[None]:
    """Errors name what was sent: the messages that parts of the prompt come from, and what said how long it may be."""
    try:
        yield
    except RequestError as error:
        kind, number, *_ = *(error.field or "").split("."), ""
        if kind == "parts" and number.isdigit():
            error.field = places[int(number)]
        elif kind == "max_new_tokens":
            error.field = "max_completion_tokens" if asked.max_completion_tokens else "max_tokens"
        raise


def _takes(schema: type[BaseModel]) -> dict[str, Any]:
    body = {"schema": {"$ref": REFERENCE.format(model=schema.__name__)}}
    return {"requestBody": {"required": True, "content": {"application/json": body}}}


def _takes_form() -> dict[str, Any]:
    form = TranscriptionRequest.model_json_schema(ref_template=REFERENCE)
    form["properties"] = {"file": {"type": "string", "format": "binary"}, **form["properties"]}
    form["properties"]["timestamp_granularities[]"] = form["properties"].pop("timestamp_granularities")
    form["required"] = ["file", "model"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}
