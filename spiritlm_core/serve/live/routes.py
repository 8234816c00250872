"""The WebSocket ``/v1/live``: sound in as it comes, answers out while they are made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Literal

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from pydantic import Field
from starlette.websockets import WebSocketDisconnect

from spiritlm_core.audio.codec import encode_wav, to_int16
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.content import Content, Segment, Speech, SpeechSegment, Text, TextSegment
from spiritlm_core.lm.generate.speaking import Sound
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.asking import Asking, Give, Pieces
from spiritlm_core.serve.body import validated
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import INTERNAL, ServeConfig, as_request_error, invalid
from spiritlm_core.serve.live.turns import Samples, Turns
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.schema import (
    AudioPart,
    GenerateRequest,
    Sampling,
    TextPart,
    TokenizeRequest,
    TranscribeRequest,
    UnitsPart,
    VoiceOptions,
)
from spiritlm_core.serve.service import RequestHandler

_REMEMBERED = 32  # latest parts of a conversation
_IDLE = 300.0  # seconds without any message until a connection is closed
_TRY_LATER = 1013  # of the WebSocket protocol


class LiveRequest(Sampling, VoiceOptions):
    """The first message of a connection."""

    model: str | None = Field(None, description="Name of a model; the first if not given.")
    task: Literal["answer", "transcribe"] = Field(
        "answer", description="Go on with the conversation, or write it down."
    )
    output: Literal["text", "speech", "both"] = Field(
        "both", description="Modality of an answer; both: it is written, and said."
    )
    sample_rate: int = Field(SAMPLE_RATE, ge=8000, le=96_000, description="Of the sound that is sent, in hertz.")
    pause: float = Field(0.5, ge=0.1, le=5, description="Seconds of silence that end a turn.")


class LiveRoutes(Asking):
    """The WebSocket, and the page that uses it."""

    def __init__(self, engine: Engine, config: ServeConfig) -> None:
        super().__init__(engine, config)
        self._open = 0

    def add(self, app: FastAPI) -> None:
        """Add the routes to `app`."""
        app.add_api_websocket_route("/v1/live", self.live)
        if self.config.page:
            app.get("/live", include_in_schema=False)(self.page)

    async def page(self) -> HTMLResponse:
        """A microphone, and what the model makes of it."""
        return HTMLResponse(files(__package__).joinpath("templates", "live.html").read_text(encoding="utf-8"))

    async def live(self, socket: WebSocket) -> None:
        """One connection: settings, then sound."""
        with contextlib.suppress(WebSocketDisconnect):  # it may leave at any moment
            await socket.accept()
            if self._open >= self.config.queue:
                await socket.close(_TRY_LATER, "too many are talking: try again later")
                return
            self._open += 1
            try:
                await self._conversed(socket)
            finally:
                self._open -= 1

    async def _conversed(self, socket: WebSocket) -> None:
        try:
            await _Conversation(self, socket).run()
        except TimeoutError:
            pass  # it was silent for too long
        except SpiritLMError as error:
            await socket.send_json({"type": "error", **(as_request_error(error) or INTERNAL).to_dict()})
        with contextlib.suppress(RuntimeError):  # it is closed already
            await socket.close()


class _Conversation:
    """What is said over one connection."""

    def __init__(self, routes: LiveRoutes, socket: WebSocket) -> None:
        self._routes, self._socket = routes, socket
        self._said: list[TextPart | UnitsPart] = []  # of both sides, in order
        self._answer: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the client leaves. Raises RequestError: its messages are none; WebSocketDisconnect; TimeoutError."""
        config, first = self._routes.config, await self._message()
        if not isinstance(first, str):
            raise invalid("the first message is JSON with settings; {} takes the defaults")
        self._asked = validated(LiveRequest, first)
        model = self._routes.engine.name(self._asked.model)
        turns = Turns(self._asked.sample_rate, self._asked.pause, config.max_seconds)
        await self._send("ready", model=model, sample_rate=SAMPLE_RATE)
        try:
            while True:
                await self._take(turns, await self._message())
        finally:
            await self._interrupt()

    async def _message(self) -> str | bytes:
        async with asyncio.timeout(_IDLE):
            message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return message["bytes"] if message.get("bytes") is not None else str(message["text"])

    async def _take(self, turns: Turns, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._obey(turns, message)
            return
        if len(message) % 2:
            raise invalid("sound is 16-bit samples: a message has an even number of bytes")
        for ended in await asyncio.to_thread(lambda: list(turns.feed(message))):
            if ended is None:
                await self._interrupt()
                await self._send("listening")
            else:
                await self._respond(ended)

    async def _obey(self, turns: Turns, message: str) -> None:
        if message == "answer":
            if (ended := turns.end()) is not None:
                await self._respond(ended)
            elif self._answer is None or self._answer.done():
                await self._send("done", text="", finish="silence", empty="there is no speech in what was sent")
        elif message == "stop":
            await self._interrupt()
        else:
            raise invalid(f"there is no message {message!r:.40}: there are answer and stop, and sound")

    async def _respond(self, turn: Samples) -> None:
        await self._interrupt()
        await self._send("thinking", seconds=round(len(turn) / SAMPLE_RATE, 2))
        self._answer = asyncio.create_task(self._answered(turn))

    async def _interrupt(self) -> None:
        """End the answer that is under way."""
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answer
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._send("interrupted")

    async def _answered(self, turn: Samples) -> None:
        """Answer a turn; what was answered until somebody interrupts stays part of the conversation."""
        heard: list[UnitsPart] = []
        given: list[Segment] = []
        try:
            with self._routes.engine.place():
                work = self._work(heard, list(self._said))
                pieces = self._routes.pieces(self._asked.model, {"turn": encode_wav(turn)}, work)
                try:
                    async with asyncio.timeout(2 * self._routes.config.timeout):
                        await self._passed_on(pieces, given)
                finally:
                    pieces.ticket.give_up()
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            pass  # nobody is there any more, or nobody reads
        except Exception as error:  # noqa: BLE001 - the connection lives on
            with contextlib.suppress(WebSocketDisconnect):
                await self._send("error", **(as_request_error(error) or INTERNAL).to_dict())
        finally:
            self._said = [*self._said, *heard, *_parts(given)][-_REMEMBERED:]

    async def _passed_on(self, pieces: Pieces, given: list[Segment]) -> None:
        while not isinstance(piece := await pieces.next(), Reply):
            if isinstance(piece, Sound):
                await self._socket.send_bytes(to_int16(piece.waveform).astype("<i2").tobytes())
                continue
            given.append(piece)
            if isinstance(piece, TextSegment):
                await self._send("text", text=piece.text)
        await self._send("done", text=piece.answer.text, finish=piece.answer.finish)

    def _work(
        self, heard: list[UnitsPart], said: Sequence[TextPart | UnitsPart]
    ) -> Callable[[RequestHandler, Give], Reply]:
        """What the engine's thread does: units of the turn, then the answer."""
        options = self._asked.model_dump(include={*Sampling.model_fields, *VoiceOptions.model_fields})

        def work(handler: RequestHandler, give: Give) -> Reply:
            tokens, _ = handler.tokenize(TokenizeRequest(audio=AudioPart(file="turn")))
            heard.append(UnitsPart(tokens=tokens))
            if self._asked.task == "transcribe":
                sampling = {name: options[name] for name in Sampling.model_fields}
                return handler.stream(TranscribeRequest(audio=heard[0], **sampling), give)
            both = self._asked.output == "both"
            output = "text" if both else self._asked.output
            parts = _fitting(handler.spirit, [*said, *heard], output)
            request = GenerateRequest(parts=parts, output=output, **options)
            return (handler.aloud if both else handler.stream)(request, give)

        return work

    async def _send(self, kind: str, **more: Any) -> None:
        await self._socket.send_json({"type": kind, **more})


def _fitting(spirit: SpiritLM, parts: list[Any], output: str) -> list[Any]:
    """The latest parts, so many that half of the context is left for the answer, one at least."""
    while len(parts) > 1 and len(spirit.prompt_ids([list(map(_content, parts))], output)[0]) > spirit.context // 2:
        parts = parts[1:]
    return parts


def _content(part: TextPart | UnitsPart) -> Content:
    return Text(part.text) if isinstance(part, TextPart) else Speech(tokens=part.tokens)


def _parts(given: Sequence[Segment]) -> list[TextPart | UnitsPart]:
    text = "".join(piece.text for piece in given if isinstance(piece, TextSegment)).strip()
    tokens = "".join(piece.tokens for piece in given if isinstance(piece, SpeechSegment))
    return [*([TextPart(text=text)] if text else []), *([UnitsPart(tokens=tokens)] if tokens else [])]
