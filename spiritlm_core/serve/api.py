"""The HTTP interface: the models' routes, what is said about the server, and how errors look."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from spiritlm_core.serve.body import BodyLimit
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import INTERNAL, RequestError, as_request_error, gone
from spiritlm_core.serve.gate import Gate
from spiritlm_core.serve.replies import describe
from spiritlm_core.serve.routes import Routes, described
from spiritlm_core.serve.schema import Health, Limits, Models
from spiritlm_core.serve.settings import ServeConfig


def create_app(engine: Engine, config: ServeConfig) -> FastAPI:
    """The HTTP interface of `engine`: everything but the page."""
    app = FastAPIOffline(
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        title="spiritlm",
        version=version("spiritlm-pipeline"),
        description="Text and speech in, text and speech out. Errors are `{error: {type, message, field}}`.",
    )
    _errors(app)
    _about(app, engine, config)
    Routes(engine, config).add(app)
    app.add_middleware(BodyLimit, config=config)
    app.add_middleware(Gate, config=config)
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

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        return said(gone())

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return said(RequestError(error.status_code, "http", f"{error.detail}: see /docs"))

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        return said(as_request_error(error) or INTERNAL)


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
