"""What of Gradio can be reached: the routes that the page uses, and of files those that the page itself uploaded."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_core.serve.body import uploaded
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError, gone, invalid
from spiritlm_core.serve.gate import parted
from spiritlm_core.serve.kept import Kept, not_uploaded

UPLOAD = "/gradio_api/upload"
_FILE = "/gradio_api/file="
_JOIN = "/gradio_api/queue/join"
_READ = re.compile(
    r"/((config|theme\.css|robots\.txt|manifest\.json|favicon\.ico)|(assets|static|svelte)/.+)?"
    r"|/gradio_api/(info|queue/data|upload_progress|startup-events|theme\.css|app_id|heartbeat/\w+|file=.+)"
)
_WRITTEN = (_JOIN, "/gradio_api/cancel", "/gradio_api/reset")
_ASKED = ("data", "event_data", "fn_index", "trigger_id", "session_hash")  # others change the meaning
_LONGEST = 1_000_000  # bytes of a request to the queue: texts and names of files, no recordings


class Guard:
    """Middleware inside Gradio's application, which takes paths and URLs from requests where it is mounted in another.

    All of its routes but those of the page are gone: what calls a function at once, or a component's, or fetches
    for a client. Work in the queue may name no file that was not uploaded in its session, and only one of `functions`.
    """

    def __init__(self, app: ASGIApp, kept: Kept, functions: int) -> None:
        self.app, self._kept, self._functions = app, kept, range(functions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            receive = await self._checked(scope, receive)
        except RequestError as error:
            await JSONResponse(error.to_page(), error.status)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        path, reads = scope["path"], scope["method"] in ("GET", "HEAD")
        if not (_READ.fullmatch(path) if reads else scope["method"] == "POST" and path in _WRITTEN):
            raise RequestError(404, "not_found", f"there is no {path:.60}: see /docs")
        if path.startswith(_FILE) and not self._kept.holds(path.removeprefix(_FILE)):
            raise RequestError(403, "no_such_file", "there is no such file, or it is none of this page")
        return receive if path != _JOIN else _again(await self._joined(scope, receive), receive)

    async def _joined(self, scope: Scope, receive: Receive) -> bytes:
        """A request to the queue as it was understood here, so that nobody reads it in another way."""
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestError(415, "unsupported", "a request to the queue is application/json")
        try:
            asked = json.loads(await _body(receive))
        except (ValueError, RecursionError) as error:
            raise invalid("the request is not JSON") from error
        session = asked.get("session_hash") if isinstance(asked, dict) else None
        if not isinstance(session, str) or not session:
            raise invalid("a request to the queue is an object with a session_hash", "session_hash")
        if type(asked.get("fn_index")) is not int or asked["fn_index"] not in self._functions:
            raise invalid("there is no such function", "fn_index")
        if not isinstance(asked.get("data"), list):
            raise invalid("what a function is given is a list", "data")
        for found in _files(asked):
            self._claim(found, session)
        try:
            kept = {key: asked[key] for key in _ASKED if key in asked}
            return json.dumps(kept, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise invalid("a number is not finite, or a text no Unicode", "data") from error

    def _claim(self, found: dict[str, Any], session: str) -> None:
        path, url = found.get("path"), found.get("url")
        if path is not None:
            self._kept.claim(path if isinstance(path, str) else "", session)
        if url is not None and not (isinstance(url, str) and unquote(parted(url).path).endswith(f"{_FILE}{path}")):
            raise not_uploaded()


def uploads(kept: Kept, engine: Engine) -> Callable[[Request], Awaitable[Response]]:
    """Takes uploads in place of Gradio, within the limits of all other requests; a place of `engine` for each."""

    async def receive(request: Request) -> Response:
        """Keep the files of a form; the answer is the list of their paths."""
        with engine.place():
            files = await uploaded(request)
        return JSONResponse([str(kept.upload(name, data)) for name, data in files])

    return receive


def _files(value: Any) -> Iterator[dict[str, Any]]:
    """All objects, however deep, that could name a file."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            if "path" in one or "url" in one:
                yield one
        elif isinstance(one, list):
            waiting += one


async def _body(receive: Receive) -> bytes:
    data, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise gone()
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > _LONGEST:
            raise RequestError(413, "too_large", f"a request to the queue has at most {_LONGEST} bytes")
    return bytes(data)


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` with a body in front that was read already."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
