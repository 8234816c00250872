"""Bodies of requests: counted while they arrive, read as JSON, as a multipart form, or as a recording alone."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_core.serve.errors import RequestError, invalid, too_large
from spiritlm_core.serve.settings import ServeConfig

M = TypeVar("M", bound=BaseModel)

_KINDS = ("text", "audio", "units")
_OVERHEAD = 65_536  # of a multipart form around a file


class BodyLimit:
    """Middleware: refuses a body that says it is too large before a byte is read, and others once they become it."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self.app, self.config, self.most = app, config, config.max_bytes + _OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.most:
            error = too_large(self.config.max_upload_mb)
            response = JSONResponse({**error.to_dict(), "detail": str(error)}, error.status)
            await response(scope, receive, send)
            return
        await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.most:
                raise too_large(self.config.max_upload_mb)
            return message

        return counted


async def read(request: Request, schema: type[M], config: ServeConfig) -> tuple[M, dict[str, bytes]]:
    """The request, and uploaded files by the name of their field.

    Args:
        request: JSON; a multipart form whose field ``request`` is JSON, with files beside it; or, for a `schema` with a
            field ``audio``, the bytes of a recording alone (``audio/…``, ``application/octet-stream``).
        schema: what it must be.
        config: how long it may take to arrive.

    Raises:
        RequestError: it is too large, too slow, or not what `schema` says.
    """
    try:
        async with asyncio.timeout(config.upload_timeout):
            return await _read(request, schema, config)
    except TimeoutError as error:
        message = f"the request did not arrive within {config.upload_timeout:g} s"
        raise RequestError(408, "slow", message) from error
    except ClientDisconnect as error:
        raise RequestError(499, "gone", "the client has gone") from error


async def _read(request: Request, schema: type[M], config: ServeConfig) -> tuple[M, dict[str, bytes]]:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request, schema, config)
    if "audio" in schema.model_fields and (kind.startswith("audio/") or kind == "application/octet-stream"):
        return validated(schema, {"audio": _file("audio")}), {"audio": await request.body()}
    if kind not in ("application/json", "application/x-www-form-urlencoded"):  # curl -d says the latter
        raise RequestError(415, "unsupported", f"a body is JSON or multipart/form-data, not {kind:.60}")
    return validated(schema, await request.body()), {}


async def _form(request: Request, schema: type[M], config: ServeConfig) -> tuple[M, dict[str, bytes]]:
    try:
        async with request.form(max_files=64, max_fields=4, max_part_size=config.max_bytes) as form:
            files = {name: await value.read() for name, value in form.items() if isinstance(value, UploadFile)}
            said = form.get("request")
            if isinstance(said, UploadFile):  # curl -F request=@request.json
                said = files.pop("request").decode("utf-8", "replace")
    except HTTPException as error:
        raise RequestError(400, "bad_request", f"the form cannot be read: {error.detail}") from error
    if isinstance(said, str):
        return validated(schema, said), files
    if "audio" in schema.model_fields and len(files) == 1:
        return validated(schema, {"audio": _file(next(iter(files)))}), files
    raise invalid("the form needs a field `request` with JSON", "request")


def _file(name: str) -> dict[str, str]:
    return {"kind": "audio", "file": name}


def validated(schema: type[M], data: bytes | str | dict[str, Any]) -> M:
    """`data` as `schema`.

    Raises:
        RequestError: it is not; the first field at fault is named.
    """
    try:
        return schema.model_validate(data) if isinstance(data, dict) else schema.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise invalid(first["msg"].removeprefix("Value error, "), _field(first["loc"])) from error


def _field(location: tuple[int | str, ...]) -> str | None:
    """Its dotted name, without the tags of alternatives that pydantic puts behind an index or ``audio``."""
    names = [
        str(part)
        for before, part in zip((None, *location), location, strict=False)
        if not (part in _KINDS and (isinstance(before, int) or before == "audio"))
    ]
    return ".".join(names) or None
