"""The HTTP interface: what may be asked of the models, and what is said about the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, TypeVar, get_args

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.metrics.verdicts import doubt
from spiritlm_core.serve.asking import Asking
from spiritlm_core.serve.body import error_response, read
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError, ServeConfig
from spiritlm_core.serve.listening import guard
from spiritlm_core.serve.live.routes import LiveRoutes
from spiritlm_core.serve.metrics import Metrics
from spiritlm_core.serve.openai.routes import REFERENCE, OpenAIRoutes
from spiritlm_core.serve.openai.schema import ChatRequest, SpeechRequest
from spiritlm_core.serve.replies import Events, classified, describe, generated, tokenized, transcribed
from spiritlm_core.serve.schema import (
    ClassifyRequest,
    ClassifyResponse,
    Error,
    GenerateRequest,
    GenerateResponse,
    Health,
    Limits,
    Models,
    SayRequest,
    TokenizeRequest,
    TokenizeResponse,
    TranscribeRequest,
    TranscribeResponse,
)
from spiritlm_core.serve.service import RequestHandler

T = TypeVar("T")
AnyRequest = GenerateRequest | TranscribeRequest | SayRequest | ClassifyRequest | TokenizeRequest
R = TypeVar("R", TranscribeRequest, ClassifyRequest, TokenizeRequest)
Responses = dict[int | str, dict[str, Any]]

ERRORS: Responses = {
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


class Routes(Asking):
    """The routes below ``/v1``."""

    def add(self, app: FastAPI) -> None:
        """Add the routes to `app`."""
        for path, schema, answer, other in (
            (self.generate, GenerateRequest, GenerateResponse, "text/event-stream"),
            (self.transcribe, TranscribeRequest, TranscribeResponse, None),
            (self.say, SayRequest, GenerateResponse, "audio/wav"),
            (self.classify, ClassifyRequest, ClassifyResponse, None),
            (self.tokenize, TokenizeRequest, TokenizeResponse, None),
        ):
            content: Responses = {200: {"content": {other: {}}}} if other else {}
            app.post(
                f"/v1/{path.__name__}",
                tags=["ask"],
                response_model=answer,
                responses={**ERRORS, **content},
                description=self._about(path),
                openapi_extra=_takes(schema),
            )(path)

    def _about(self, route: Callable[..., Any]) -> str:
        """What a route does, and which models are no good at it by their own evaluation."""
        judged = {name: doubt(spirit.verdicts, route.__name__) for name, spirit in self.engine.models.items()}
        return "\n\n".join(
            [inspect.getdoc(route) or "", *(f"**{name}**: {said}" for name, said in judged.items() if said)]
        )

    async def generate(self, request: Request) -> Any:
        """Continue a prompt of text and speech, in text, in speech, or in both.

        With `stream` the answer is server-sent events: `segment` for each piece of text or speech tokens, `audio` for
        speech as soon as it can be heard (16-bit little-endian mono PCM in base64; they join without seams), then
        `done` with the whole answer, or `error`.
        """
        with ExitStack() as held:
            held.enter_context(self.engine.place())
            asked, files = await read(request, GenerateRequest, self.config)
            if asked.stream:
                how = Events(self.engine.name(asked.model))
                return await self.streamed(
                    asked.model, files, lambda handler, give: handler.stream(asked, give), how, held.pop_all()
                )
            reply = await self.done(request, asked.model, files, lambda handler: handler.generate(asked))
        return generated(reply, self.engine.name(asked.model))

    async def transcribe(self, request: Request) -> Any:
        """Write down what is said in a recording."""
        return await self._answered(request, TranscribeRequest, RequestHandler.transcribe, transcribed)

    async def say(self, request: Request) -> Any:
        """Say a text: a WAV file, or JSON with it and its speech tokens."""
        with self.engine.place():
            asked, files = await read(request, SayRequest, self.config)
            reply = await self.done(request, asked.model, files, lambda handler: handler.say(asked))
        if asked.format == "wav" and reply.waveform is not None:
            return Response(encode_wav(reply.waveform), media_type="audio/wav")
        return generated(reply, self.engine.name(asked.model))

    async def classify(self, request: Request) -> Any:
        """Choose the label that is the most likely answer."""
        return await self._answered(request, ClassifyRequest, RequestHandler.classify, classified)

    async def tokenize(self, request: Request) -> Any:
        """Turn a recording into units."""
        return await self._answered(request, TokenizeRequest, RequestHandler.tokenize, tokenized)

    async def _answered(
        self,
        request: Request,
        schema: type[R],
        work: Callable[[RequestHandler, R], T],
        reply: Callable[[T, str], BaseModel],
    ) -> BaseModel:
        with self.engine.place():
            asked, files = await read(request, schema, self.config)
            answer = await self.done(request, asked.model, files, lambda handler: work(handler, asked))
        return reply(answer, self.engine.name(asked.model))


def _takes(schema: type[BaseModel]) -> dict[str, Any]:
    """The body of a route that reads it itself: JSON, a form with files, or a recording alone."""
    json = {"$ref": REFERENCE.format(model=schema.__name__)}
    form = {
        "type": "object",
        "properties": {"request": json},
        "additionalProperties": {"type": "string", "format": "binary"},
        "description": "JSON in the field `request`, and a file for each audio part that names one.",
    }
    content: dict[str, Any] = {"application/json": {"schema": json}, "multipart/form-data": {"schema": form}}
    if "audio" in schema.model_fields:
        content["audio/*"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What makes the description: FastAPI's, with the schemas of the requests."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, schemas = models_json_schema(
                [(model, "validation") for model in (*get_args(AnyRequest), ChatRequest, SpeechRequest)],
                ref_template=REFERENCE,
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    return openapi


def create_app(engine: Engine, config: ServeConfig) -> FastAPI:
    """The HTTP interface of `engine`: everything but the page."""
    app = FastAPIOffline(
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        title="spiritlm",
        version=version("spiritlm-pipeline"),
        description="Text and speech in, text and speech out. Errors are `{error: {type, message, field}}`, and below "
        "`/v1` on OpenAI's routes and unknown ones `{error: {message, type, param, code}}`.",
    )
    app.add_middleware(_Methods, routes=app.routes)
    guard(app, config)
    Metrics(engine).add(app)
    _about(app, engine, config)
    Routes(engine, config).add(app)
    OpenAIRoutes(engine, config).add(app, ERRORS)
    LiveRoutes(engine, config).add(app)
    app.openapi = described(app)  # type: ignore[method-assign]
    return app


class _Methods:
    """Middleware: HEAD is GET without a body; what no route takes is refused before a page at ``/`` is asked."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        methods = self._taken(scope) if scope["type"] == "http" else None
        if methods is None or scope["method"] in methods - {"HEAD"}:
            await self.app(scope, receive, send)
        elif scope["method"] in methods:
            await self.app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            error, allowed = _refused(scope, methods), {"Allow": ", ".join(sorted(methods))} if methods else {}
            await error_response(error, scope["path"], **allowed)(scope, receive, send)

    def _taken(self, scope: Scope) -> set[str] | None:
        """The methods of the route of this path; None where there is none, and a page may have it."""
        found = [route for route in self._routes if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE]
        if not found:
            return set() if scope["path"].startswith("/v1/") else None
        methods = {method for route in found for method in route.methods or ()}
        return methods | {"HEAD"} if "GET" in methods else methods


def _refused(scope: Scope, methods: set[str]) -> RequestError:
    path = f"{scope['path']:.60}"
    if not methods:
        return RequestError(404, "not_found", f"there is no {path}: see /docs")
    takes = f"{path} takes {', '.join(sorted(methods))}, not {scope['method']:.20}: see /docs"
    return RequestError(405, "method_not_allowed", takes)


def _without_body(send: Send) -> Send:
    async def sent(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sent


def _about(app: FastAPI, engine: Engine, config: ServeConfig) -> None:
    limits = Limits.model_validate(config.model_dump(include=set(Limits.model_fields)))
    models = Models(models=[describe(name, spirit) for name, spirit in engine.models.items()])

    @app.get("/health", tags=["about"], response_model=Health)
    async def health(response: Response) -> Health:
        """Whether requests are taken, and how many wait; status 503 while the server is being ended."""
        response.status_code = 200 if engine.ready else 503
        return Health(ready=engine.ready, model=engine.default, queue_depth=engine.depth, limits=limits)

    @app.get("/v1/model", tags=["about"], response_model=Models)
    async def model() -> Models:
        """The models that are served; the first is the default."""
        return models
