"""The HTTP interface: routes, and how answers and errors look."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.lm.content import Segment, SpeechSegment
from spiritlm_core.serve.body import BodyLimit, M, read
from spiritlm_core.serve.describe import described, docs_page, takes
from spiritlm_core.serve.engine import Engine, Ticket
from spiritlm_core.serve.errors import RequestError, as_request_error, closing, late
from spiritlm_core.serve.schema import (
    ClassifyRequest,
    ClassifyResponse,
    Error,
    GenerateRequest,
    GenerateResponse,
    Health,
    Limits,
    ModelDescription,
    Models,
    SayRequest,
    SpeechAnswer,
    TextAnswer,
    TokenizeRequest,
    TokenizeResponse,
    TranscribeRequest,
    TranscribeResponse,
)
from spiritlm_core.serve.service import Asking, Heard, Reply, hears, speaks
from spiritlm_core.serve.settings import ServeConfig

if TYPE_CHECKING:
    from spiritlm_core.lm.spirit import SpiritLM

T = TypeVar("T")
INTERNAL = RequestError(500, "internal", "an error of the server: see its log")
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Error, "description": text}
    for code, text in {
        400: "Something in the request cannot be used.",
        404: "There is no such model.",
        413: "The request or a recording is too large.",
        422: "The request is not what the schema says.",
        429: "The queue is full; `Retry-After` says when to try again.",
        504: "It takes too long.",
    }.items()
}


def create_app(engine: Engine, config: ServeConfig) -> FastAPI:
    """The HTTP interface of `engine`: everything but the page."""
    app = FastAPI(
        title="spiritlm",
        version=version("spiritlm-pipeline"),
        description="Text and speech in, text and speech out. Errors are `{error: {type, message, field}}`.",
        docs_url=None,
        redoc_url=None,
    )
    _errors(app)
    _about(app, engine, config)
    _Routes(engine, config).add(app)
    app.add_middleware(BodyLimit, config=config)
    app.openapi = described(app)  # type: ignore[method-assign]

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
    async def nothing(rest: str) -> None:
        raise RequestError(404, "not_found", f"there is no /v1/{rest:.60}: see /docs")

    return app


def _errors(app: FastAPI) -> None:
    def said(error: RequestError) -> Response:
        return JSONResponse(error.to_dict(), error.status, error.headers)

    @app.exception_handler(RequestError)
    async def known(_: Request, error: RequestError) -> Response:
        return said(error)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return said(RequestError(error.status_code, "http", f"{error.detail}: see /docs"))

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        return said(as_request_error(error) or INTERNAL)


def _about(app: FastAPI, engine: Engine, config: ServeConfig) -> None:
    limits = Limits.model_validate(config.model_dump(include=set(Limits.model_fields)))

    @app.get("/health", tags=["about"], response_model=Health)
    async def health(response: Response) -> Health:
        """Whether requests are taken, and how many wait; status 503 while the server is being ended."""
        response.status_code = 200 if engine.ready else 503
        return Health(ready=engine.ready, model=engine.default, queue_depth=engine.depth, limits=limits)

    @app.get("/v1/model", tags=["about"], response_model=Models)
    async def model() -> Models:
        """The models that are served; the first is the default."""
        return Models(models=[describe(name, spirit) for name, spirit in engine.models.items()])

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page())


def describe(name: str, spirit: SpiritLM) -> ModelDescription:
    """What a model can do."""
    known = spirit.vocabulary
    voices = spirit.speech_tokenizer.vocoder.config.embeddings if speaks(spirit) else {}
    return ModelDescription(
        name=name,
        variant="expressive" if known.pitch else "base",
        context_length=int(spirit.model.config.max_position_embeddings),
        text_tokens=known.text_size,
        units={"hubert": known.hubert, "pitch": known.pitch, "style": known.style},
        hears=hears(spirit),
        speaks=speaks(spirit),
        speakers=voices.get("speaker", 0),
        expressions=voices.get("expression", 0),
    )


class _Routes:
    """What is asked of the models. Each takes a place first, then reads the body, then queues the work."""

    def __init__(self, engine: Engine, config: ServeConfig) -> None:
        self.engine, self.config = engine, config

    def add(self, app: FastAPI) -> None:
        """Add the routes to `app`."""
        for name, path, schema, answer in (
            ("generate", self.generate, GenerateRequest, GenerateResponse),
            ("transcribe", self.transcribe, TranscribeRequest, TranscribeResponse),
            ("say", self.say, SayRequest, GenerateResponse),
            ("classify", self.classify, ClassifyRequest, ClassifyResponse),
            ("tokenize", self.tokenize, TokenizeRequest, TokenizeResponse),
        ):
            kinds = {"generate": "text/event-stream", "say": "audio/wav"}
            content: dict[int | str, dict[str, Any]] = {200: {"content": {kinds[name]: {}}}} if name in kinds else {}
            app.post(
                f"/v1/{name}",
                tags=["ask"],
                response_model=answer,
                responses={**ERRORS, **content},
                openapi_extra=takes(schema),
            )(path)

    async def generate(self, request: Request) -> Any:
        """Continue a prompt of text and speech, in text, in speech, or in both.

        With `stream` the answer is server-sent events: `segment` for each piece, then `done` with the whole answer,
        or `error`.
        """
        with ExitStack() as held:
            held.enter_context(self.engine.place())
            asked, files = await read(request, GenerateRequest, self.config)
            if asked.stream:
                return await self._streamed(asked, files, held.pop_all())
            reply = await self._done(request, asked, files, lambda asking: asking.generate(asked))
            return answered(reply, self.engine.name(asked.model))

    async def transcribe(self, request: Request) -> Any:
        """Write down what is said in a recording."""
        with self.engine.place():
            asked, files = await read(request, TranscribeRequest, self.config)
            answer = await self._done(request, asked, files, lambda asking: asking.transcribe(asked))
        return TranscribeResponse(model=self.engine.name(asked.model), text=answer.text, finish=answer.finish)

    async def say(self, request: Request) -> Any:
        """Say a text: a WAV file, or JSON with it and its speech tokens."""
        with self.engine.place():
            asked, files = await read(request, SayRequest, self.config)
            reply = await self._done(request, asked, files, lambda asking: asking.say(asked))
        if asked.format == "wav" and reply.waveform is not None:
            return Response(encode_wav(reply.waveform), media_type="audio/wav")
        return answered(reply, self.engine.name(asked.model))

    async def classify(self, request: Request) -> Any:
        """Choose the label that is the most likely answer."""
        with self.engine.place():
            asked, files = await read(request, ClassifyRequest, self.config)
            found = await self._done(request, asked, files, lambda asking: asking.classify(asked))
        return found.model_copy(update={"model": self.engine.name(asked.model)})

    async def tokenize(self, request: Request) -> Any:
        """Turn a recording into units."""
        with self.engine.place():
            asked, files = await read(request, TokenizeRequest, self.config)
            tokens, units = await self._done(request, asked, files, lambda asking: asking.tokenize(asked))
        streams = {name: getattr(units, name) for name in ("hubert", "pitch", "style")}
        lists = {name: None if stream is None else stream.tolist() for name, stream in streams.items()}
        return TokenizeResponse(model=self.engine.name(asked.model), tokens=tokens, **lists)

    async def _done(self, request: Request, asked: M, files: dict[str, bytes], work: Callable[[Asking], T]) -> T:
        """The result of `work`, unless it takes too long or the client goes away."""
        ticket = self.engine.submit(lambda spirit: work(Asking(spirit, self.config, files)), asked.model)  # type: ignore[attr-defined]
        done: asyncio.Future[Any] = asyncio.wrap_future(ticket.future)
        leaving: asyncio.Future[Any] = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({done, leaving}, timeout=self.config.timeout, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                result: T = _result(done)
                return result
            if leaving.done():
                raise RequestError(499, "gone", "the client has gone")
            raise late(self.config.timeout)
        finally:
            leaving.cancel()
            ticket.give_up()

    async def _streamed(self, asked: GenerateRequest, files: dict[str, bytes], held: ExitStack) -> StreamingResponse:
        """Events; what is wrong with the request is said before the first of them, with a status of its own."""
        pieces: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def work(spirit: SpiritLM) -> None:
            for piece in Asking(spirit, self.config, files).stream(asked):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        deadline = loop.time() + self.config.timeout
        try:
            ticket = self.engine.submit(work, asked.model)
            held.callback(ticket.give_up)
            ticket.future.add_done_callback(lambda _: loop.call_soon_threadsafe(pieces.put_nowait, None))
            first = await self._next(pieces, ticket, deadline)
        except BaseException:
            held.close()
            raise
        name = self.engine.name(asked.model)
        return _Stream(_events(first, lambda: self._next(pieces, ticket, deadline), name), held)

    async def _next(self, pieces: asyncio.Queue[Any], ticket: Ticket[None], deadline: float) -> Segment | Reply | None:
        """The next piece, None behind the last.

        Raises:
            RequestError: the work went wrong, or it takes too long.
        """
        try:
            async with asyncio.timeout_at(deadline):
                piece: Segment | Reply | None = await pieces.get()
        except TimeoutError as error:
            raise late(self.config.timeout) from error
        if piece is None:
            _result(ticket.future)
        return piece


class _Stream(StreamingResponse):
    """Server-sent events that give back their place however they end, also if the client leaves before the first."""

    def __init__(self, events: AsyncIterator[str], held: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.held:
            await super().__call__(scope, receive, send)


async def _events(first: Any, more: Callable[[], Any], model: str) -> AsyncIterator[str]:
    piece = first
    try:
        while piece is not None:
            if isinstance(piece, Reply):
                yield _event("done", answered(piece, model).model_dump())
            else:
                yield _event("segment", {"kind": piece.kind, _content_name(piece): piece.content})
            piece = await more()
    except Exception as error:  # noqa: BLE001 - the status is sent, so that the error is an event
        found = as_request_error(error) or INTERNAL
        yield _event("error", found.to_dict())


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _content_name(segment: Segment) -> str:
    return "tokens" if isinstance(segment, SpeechSegment) else "text"


def answered(reply: Reply, model: str) -> GenerateResponse:
    """An answer as the HTTP interface gives it."""
    answer = reply.answer
    return GenerateResponse(
        model=model,
        segments=[_segment(heard) for heard in reply.segments],
        finish=answer.finish if answer else None,
        prompt_tokens=len(answer.prompt_ids) if answer else None,
        new_tokens=len(answer.ids) if answer else None,
    )


def _segment(heard: Heard) -> TextAnswer | SpeechAnswer:
    if not isinstance(heard.segment, SpeechSegment):
        return TextAnswer(text=heard.segment.text)
    wav = None if heard.waveform is None else base64.b64encode(encode_wav(heard.waveform)).decode()
    return SpeechAnswer(tokens=heard.segment.tokens, wav=wav, silent=heard.silent)


def _result(done: asyncio.Future[T] | Future[T]) -> T:
    if done.cancelled():
        raise closing()
    error = done.exception()
    if error is not None:
        raise as_request_error(error) or error
    result: T = done.result()
    return result


async def _gone(request: Request) -> None:
    """Returns when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
