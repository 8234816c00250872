"""What every page is behind: an address, guards, and an end that lets requests finish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from types import FrameType, TracebackType
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.serve.body import BodyLimit, Gate, error_response
from spiritlm_core.serve.errors import (
    INTERNAL,
    MEGABYTE,
    RequestError,
    ServeConfig,
    as_request_error,
    gone,
)
from spiritlm_core.serve.guard import Guard, Kept

logger = logging.getLogger(__name__)
_LAST = 4.0  # seconds behind the grace of requests until the process ends whatever it does


def guard(app: FastAPI, config: ServeConfig) -> None:
    """Let `app` say its errors in one way, and refuse what is too large, too slow, or comes from another site."""
    _errors(app)
    app.add_middleware(BodyLimit, config=config)
    app.add_middleware(Gate, config=config)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def known(request: Request, error: RequestError) -> Response:
        return error_response(error, request.url.path)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, _: ClientDisconnect) -> Response:
        return error_response(gone(), request.url.path)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        told = RequestError(error.status_code, kind, f"{error.detail}: see /docs")
        return error_response(told, request.url.path, **(error.headers or {}))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return error_response(as_request_error(error) or INTERNAL, request.url.path)


def mount(app: FastAPI, blocks: Any, config: ServeConfig, kept: Kept, css: str) -> FastAPI:
    """`app` with a page of Gradio's `blocks` at ``/``, whose files lie in `kept`."""
    import gradio as gr

    blocks.queue(max_size=4 * config.queue, default_concurrency_limit=config.queue)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        app_kwargs={"middleware": [Middleware(Guard, kept=kept, functions=len(blocks.fns))]},
        max_file_size=config.max_bytes,
        ssr_mode=False,
        footer_links=[],
        show_error=False,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=css,
    )
    blocks.has_launched = True  # else Gradio's own check of paths is off where it is mounted
    return mounted


class Listener(ABC):
    """Serves one application until it is told to end; a context manager that holds the address meanwhile."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._kept: Kept | None = None

    @abstractmethod
    def app(self) -> FastAPI:
        """What is served."""

    def kept(self) -> Kept:
        """A folder for the files of a page, which ends with the server; to be asked for before the page is made."""
        self._kept = Kept(int(self.config.max_kept_mb * MEGABYTE))
        os.environ["GRADIO_TEMP_DIR"] = str(self._kept.folder)
        return self._kept

    def __enter__(self) -> Self:
        """Take the address. Raises SpiritLMError: another program has it, or it is none of this machine's."""
        self._socket = listening(self.config.host, self.config.port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()
        self._delete()

    def _delete(self) -> None:
        if self._kept is not None:
            self._kept.close()

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; requests under way may finish within ``ServeConfig.grace``."""
        warnings.filterwarnings("ignore", message=".*HTTP_422_UNPROCESSABLE_ENTITY", module="gradio")
        app = self.app()
        config = uvicorn.Config(
            app,
            http=partial(_TimedProtocol, seconds=self.config.head_timeout, most=self.config.max_connections),  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=MEGABYTE,
            server_header=False,
            timeout_graceful_shutdown=self.config.grace,
            callback_notify=self._expire,
            timeout_notify=60,
        )
        logging.getLogger("uvicorn.error").addFilter(_without_traceback_of_clients)  # which uvicorn has set up by now
        _Uvicorn(config, self).run(sockets=[self._socket])

    async def _expire(self) -> None:
        if self._kept is not None:
            self._kept.expire()

    def release(self) -> None:  # noqa: B027 - a page need not compute anything
        """Give up what is still computed, so that nothing waits for it."""

    def leave(self) -> None:
        """End the process: something does not let go of it, such as a file that never ends."""
        logger.error("requests under way did not end: the server ends without them")
        self._delete()
        os._exit(0)


def _without_traceback_of_clients(record: logging.LogRecord) -> bool:
    """What is no UTF-8 in a message of a WebSocket is the client's fault, and said in a line."""
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.exc_info = None
    return True


class _Uvicorn(uvicorn.Server):
    """Ends in time and quietly: uvicorn would raise the signal anew once it is done."""

    def __init__(self, config: uvicorn.Config, server: Listener) -> None:
        super().__init__(config)
        self._server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; whatever holds the event loop or the process is not waited for."""
        super().handle_exit(sig, frame)
        last = threading.Timer(self._server.config.grace + _LAST, self._server.leave)
        last.daemon = True
        last.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for requests under way, then give them up."""
        await super().shutdown(sockets)
        self._server.release()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While serving, both signals end it; a second one ends it at once."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


class _TimedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn has it, with limits: it would wait for ever for the head of a request, on any number of them.

    The head may take so many seconds, from its first byte or from the connection's beginning; one more connection than
    the `most` is closed.
    """

    def __init__(self, *given: Any, seconds: float, most: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._seconds, self._most = seconds, most
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It begins."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """More of it came."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        """Wait for a head, unless one is being answered, or the connection is a WebSocket by now."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.get_protocol() is not self:
            self._unwatch()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self._seconds, self.transport.abort)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def listening(host: str, port: int) -> socket.socket:
    """Take an address. Raises SpiritLMError: another program has it, or it is none of this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SpiritLMError(f"--host {host} is no address of this machine: {error.strerror or error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # so that the port is taken while models are loaded
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise SpiritLMError(f"{host}:{port} cannot be used: {reason} (another --port, or 0 for a free one)") from error
    return listener
