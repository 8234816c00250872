"""Which requests are taken, and their bodies: counted while they arrive, read as JSON, as a form, or as a recording.

Requests must call this server by a name of its own, and come from no other site.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import json
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_core.config import meant, message_of
from spiritlm_core.serve.errors import RequestError, ServeConfig, invalid, is_openai, openai_error, too_large
from spiritlm_core.serve.schema import AudioPart, Shot, TextPart, UnitsPart

M = TypeVar("M", bound=BaseModel)
logger = logging.getLogger(__name__)
_POLICY = 1008  # of the WebSocket protocol: what was sent breaks a rule of the server

_INNER = {name: None for part in (TextPart, AudioPart, UnitsPart, Shot) for name in part.model_fields}
_OVERHEAD = 65_536  # of a multipart form around a file


def error_response(error: RequestError, path: str, **headers: str) -> JSONResponse:
    """What is answered at `path` in place of what was asked for; ``detail`` is what the page shows."""
    if is_openai(path):
        status = 400 if error.status == 422 else error.status
        return JSONResponse(openai_error(error), status, {**error.headers, **headers})
    page = {"detail": str(error)} if path.startswith("/gradio_api") else {}
    return JSONResponse({**error.to_dict(), **page}, error.status, {**error.headers, **headers})


class BodyLimit:
    """Middleware: refuses a body that says it is too large before a byte is read, others once they are it, or late."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self.app, self.config, self.most = app, config, config.max_bytes + _OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.most, self.config)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self.most:
            await exchange.refuse(too_large(self.config.max_upload_mb))
            return
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.refused:  # else it is about the client, who seemed to go
                raise


class _Exchange:
    """A request whose body is counted and timed. Once it is refused, the application takes the client to be gone."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int, config: ServeConfig) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._most, self._config = most, config
        self._deadline = asyncio.get_running_loop().time() + config.upload_timeout
        self._seen, self._arriving, self._answering, self.refused = 0, True, False, False

    async def receive(self) -> Message:
        """A piece of the body."""
        if not self._arriving:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            late = f"the request did not arrive within {self._config.upload_timeout:g} s"
            return await self.refuse(RequestError(408, "slow", late))
        self._seen += len(message.get("body", b""))
        self._arriving = message.get("more_body", False)
        return message if self._seen <= self._most else await self.refuse(too_large(self._config.max_upload_mb))

    async def send(self, message: Message) -> None:
        """A piece of the answer."""
        self._answering = True
        if not self.refused:
            await self._send(message)

    async def refuse(self, error: RequestError) -> Message:
        """Answer with `error`, and close the connection."""
        self.refused, self._arriving = True, False
        if not self._answering:
            response = error_response(error, self._scope["path"], Connection="close")
            await response(self._scope, self._receive, self._send)
        return {"type": "http.disconnect"}


async def read(request: Request, schema: type[M], config: ServeConfig) -> tuple[M, dict[str, bytes]]:
    """The request, and uploaded files by the name of their field.

    It is JSON; a multipart form whose field ``request`` is JSON, with files beside it; or, for a `schema` with a field
    ``audio``, the bytes of a recording alone (``audio/…``, ``application/octet-stream``). Raises RequestError: it is
    not what `schema` says; ClientDisconnect: the client went away, or the body was too large or too slow.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(request, schema, config)
    if "audio" in schema.model_fields and (kind.startswith("audio/") or kind == "application/octet-stream"):
        return validated(schema, {"audio": _file("audio")}), {"audio": await request.body()}
    if kind not in ("application/json", "application/x-www-form-urlencoded"):  # curl -d says the latter
        kinds = "application/json, multipart/form-data" + (", audio/*" if "audio" in schema.model_fields else "")
        raise RequestError(415, "unsupported", f"the body of a request is one of {kinds}, not {kind:.60}")
    return validated(schema, await request.body()), {}


async def read_form(request: Request, schema: type[M], config: ServeConfig) -> tuple[M, dict[str, bytes]]:
    """A form whose fields are those of `schema`, with a file ``file``; names of lists end in ``[]``.

    Raises RequestError: it is not what `schema` says, or has no such file; ClientDisconnect: as of :func:`read`.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(415, "unsupported", "the body is a form: multipart/form-data")
    async with _form(request, max_files=1, max_fields=32, max_part_size=config.max_bytes) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise invalid("the form needs a recording in the field `file`", "file")
        lists = {name.removesuffix("[]"): form.getlist(name) for name in form if name.endswith("[]")}
        fields = {name: value for name, value in form.items() if name != "file" and not name.endswith("[]")}
        return validated(schema, {**fields, **lists}), {"file": await file.read()}


async def uploaded(request: Request) -> list[tuple[str, bytes]]:
    """Names and contents of the files of a multipart form.

    Raises RequestError: it is none; ClientDisconnect: the client went away.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(415, "unsupported", "files come as multipart/form-data")
    async with _form(request, max_files=16, max_fields=4) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        return [(file.filename or "", await file.read()) for file in files]


@asynccontextmanager
async def _form(request: Request, **limits: int) -> AsyncIterator[FormData]:
    try:
        async with request.form(**limits) as form:
            yield form
    except HTTPException as error:
        raise RequestError(400, "bad_request", f"the form cannot be read: {error.detail}") from error


async def _multipart(request: Request, schema: type[M], config: ServeConfig) -> tuple[M, dict[str, bytes]]:
    async with _form(request, max_files=64, max_fields=4, max_part_size=config.max_bytes) as form:
        files = {name: await value.read() for name, value in form.items() if isinstance(value, UploadFile)}
        said = form.get("request")
        if isinstance(said, UploadFile):  # curl -F request=@request.json
            said = files.pop("request").decode("utf-8", "replace")
    if isinstance(said, str):
        return validated(schema, said), files
    if "audio" in schema.model_fields and len(files) == 1:
        return validated(schema, {"audio": _file(next(iter(files)))}), files
    raise invalid("the form needs a field `request` with JSON", "request")


def _file(name: str) -> dict[str, str]:
    return {"kind": "audio", "file": name}


def validated(schema: type[M], data: bytes | str | dict[str, Any]) -> M:
    """`data` as `schema`. Raises RequestError: it is not; the first field at fault is named."""
    try:
        return schema.model_validate(data) if isinstance(data, dict) else schema.model_validate_json(data)
    except ValidationError as error:
        place, fault = _fault(error, data)
        message = message_of(fault)
        if fault["type"] == "extra_forbidden":
            known = schema.model_fields if len(place) == 1 else _INNER
            message = f"there is no such field{meant(place[-1], known)}"
        raise invalid(message, ".".join(place) or None) from error


def _fault(error: ValidationError, data: bytes | str | dict[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names that lead to the first fault, and it; of alternatives that fail, the one that got the furthest."""
    sent: Any = data
    if not isinstance(data, dict):
        with contextlib.suppress(ValueError, RecursionError):
            sent = json.loads(data)
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    placed = [(_place(fault["loc"], sent, fault["type"] == "missing"), dict(fault)) for fault in faults]
    first = placed[0][0]
    return max((one for one in placed if one[0][: len(first)] == first), key=lambda one: len(one[0]))


def _place(location: Sequence[Any], sent: Any, missing: bool) -> tuple[str, ...]:
    """The part of pydantic's location that is in what was sent: it also names alternatives, as a tag or a type."""
    if not location:
        return ()
    name, *rest = location
    without = _place(rest, sent, missing)
    if (isinstance(sent, dict) and name in sent) or (isinstance(sent, list) and name in range(len(sent))):
        return max(without, (str(name), *_place(rest, sent[name], missing)), key=len)
    return (str(name),) if missing and not rest else without


_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


class Gate:
    """Middleware: refuses what a web page of another site sends through the browser of somebody on this machine.

    A name that was pointed at this machine (DNS rebinding) is found out by ``Host``, a form or script of another site
    by ``Origin``, which browsers always send with what they post. Where there is a token, it must be sent, too.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self.app, self._everywhere = app, config.host in _EVERYWHERE
        self._added, self._token = config.allow_host, config.token
        self._own = {"localhost", config.host.lower(), *config.allow_host}
        if self._everywhere:
            self._own |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        error = None if scope["type"] == "lifespan" else self._refusal(Headers(scope=scope), scope["path"])
        if error is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            logger.warning("a WebSocket is refused: %s", error)
            await send({"type": "websocket.close", "code": _POLICY, "reason": error.kind})  # the client sees a 403
        else:
            await error_response(error, scope["path"])(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> RequestError | None:
        host = headers.get("host")
        if host is not None and not self._is_own(_name(f"//{host}")):
            message = f"this server is not called {host:.60}: start it with --allow-host to let it be called so"
            return RequestError(403, "wrong_host", message)
        for origin in headers.getlist("origin"):
            own = host is not None and parted(origin).netloc.lower() == host.lower()
            if not own and _name(origin) not in self._added:
                message = f"a page of {origin:.60} may not use this server: see --allow-host"
                return RequestError(403, "wrong_origin", message)
        if path != "/health" and not self._is_known(headers.get("authorization", "")):
            message = "this server asks for a token: send the header `Authorization: Bearer TOKEN`"
            return RequestError(401, "wrong_token", message)
        return None

    def _is_known(self, authorization: str) -> bool:
        """Whether the token is sent, as such or, by browsers, as the password of some name; takes the same time."""
        if self._token is None:
            return True
        scheme, _, sent = authorization.partition(" ")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                sent = base64.b64decode(sent).decode("latin-1").partition(":")[2]
        return hmac.compare_digest(sent.encode("utf-8", "replace"), self._token.get_secret_value().encode())

    def _is_own(self, name: str) -> bool:
        if name in self._own or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._everywhere  # numbers cannot be pointed elsewhere
        except ValueError:
            return False


def _name(url: str) -> str:
    return parted(url).hostname or ""


def parted(url: str) -> SplitResult:
    """The parts of an address; of what is none they are empty."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
