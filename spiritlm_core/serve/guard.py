"""What of Gradio can be reached: the routes that the page uses, and of files those that the page itself uploaded."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_core.serve.body import error_response, parted, uploaded
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError, gone, invalid

_PREFIX = "spiritlm-page-"
_NAME = 80  # characters of a file's name that are kept
_OLDEST = 3600.0  # seconds


class Kept:
    """A temporary folder, which ends with the server. An upload belongs to one session.

    It takes at most so many bytes: the oldest files go first, and those of more than an hour.
    """

    def __init__(self, most: int) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        self._most, self._lock = most, threading.Lock()
        self._held = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self._owners: dict[str, str | None] = {}

    def close(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._held)

    def upload(self, name: str, data: bytes) -> Path:
        """Keep a file that somebody sent; the first session that uses it owns it."""
        path = self.add(name, data)
        self._owners[str(path)] = None
        return path

    def add(self, name: str, data: bytes) -> Path:
        """Keep a file under a path that nobody can guess. Raises RequestError: it alone is larger than all may be."""
        if len(data) > self._most:
            raise RequestError(507, "full", "the file is larger than all that this server keeps")
        with self._lock:
            self._make_room(len(data))
            folder = self.folder / secrets.token_urlsafe(18)
            folder.mkdir()
            path = folder / _plain(name)
            path.write_bytes(data)
        return path

    def claim(self, path: str, session: str) -> None:
        """Let `session` use an upload. Raises RequestError: `path` is no upload, or that of another session."""
        with self._lock:
            if self._owners.get(path, "") in (None, session) and Path(path).is_file():
                self._owners[path] = session
                return
        raise not_uploaded()

    def holds(self, path: str) -> bool:
        """Whether it is a file of this folder; links lead nowhere."""
        try:
            file = Path(path).resolve()
            return str(file) == path and file.is_relative_to(self.folder) and file.is_file()
        except (OSError, ValueError):
            return False

    def expire(self) -> None:
        """Delete what is too old."""
        with self._lock:
            self._make_room(0)

    def _make_room(self, size: int) -> None:
        """Delete what is too old, and the oldest until `size` bytes more can be kept."""
        files = [(path.stat(), path) for path in self.folder.rglob("*") if path.is_file()]
        files.sort(key=lambda pair: pair[0].st_mtime)
        total, now = size + sum(stat.st_size for stat, _ in files), time.time()
        for stat, path in files:
            if total <= self._most and stat.st_mtime > now - _OLDEST:
                break
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            self._owners.pop(str(path), None)
            total -= stat.st_size


def not_uploaded() -> RequestError:
    """A request of the page that names some other file."""
    return RequestError(403, "not_uploaded", "a file of a request must be one that its page has uploaded", "data")


def _plain(name: str) -> str:
    """The last part of a name, without what is no letter, digit, or one of ``._- ``."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isalnum() or char in "._- ").strip(" .")
    return kept[-_NAME:] or "file"


def _sweep(parent: Path) -> None:
    """Delete the folders of servers that were killed: nobody holds their locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(held).st_mtime > 60:  # one that is just being made has no lock yet
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


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
            await error_response(error, scope["path"])(scope, receive, send)
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
