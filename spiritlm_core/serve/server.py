"""The server: an address, models behind an engine, and an end that lets requests finish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import MEGABYTE, ServeConfig
from spiritlm_core.serve.guard import Kept
from spiritlm_core.serve.routes import create_app

logger = logging.getLogger(__name__)
_LAST = 4.0  # seconds behind the grace of requests until the process ends whatever it does


class Server:
    """Serves models until it is told to end; a context manager, which takes the address first and gives it back last.

    Example:
        >>> with Server(ServeConfig(port=0)) as server:  # doctest: +SKIP
        ...     server.load(["published"])
        ...     server.run()
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._engine: Engine | None = None
        self._kept: Kept | None = None

    def __enter__(self) -> Self:
        """Take the address. Raises SpiritLMError: another program has it, or it is none of this machine's."""
        self._socket = _listening(self.config.host, self.config.port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._engine is not None:
            self._engine.close()
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

    def load(self, models: Sequence[str], **options: Any) -> None:
        """Load models, named after their folders, with `options` of :meth:`SpiritLM.from_pretrained`.

        The first is the default. Raises SpiritLMError if one cannot be loaded.
        """
        names = _names(models)
        loaded = {name: SpiritLM.from_pretrained(path, **options) for name, path in zip(names, models, strict=True)}
        for name, spirit in loaded.items():
            _warm(name, spirit)
        self._engine = Engine(loaded, self.config.queue)

    def app(self) -> FastAPI:
        """The HTTP interface, with the page if there is one. Raises SpiritLMError if no model is loaded."""
        if self._engine is None:
            raise SpiritLMError("load a model before the server runs")
        app = create_app(self._engine, self.config)
        if not self.config.page:
            return app
        from spiritlm_core.serve.page import mount

        self._kept = Kept(int(self.config.max_kept_mb * MEGABYTE))
        mounted: FastAPI = mount(app, self._engine, self.config, self._kept)
        return mounted

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; requests under way may finish within ``ServeConfig.grace``."""
        warnings.filterwarnings("ignore", message=".*HTTP_422_UNPROCESSABLE_ENTITY", module="gradio")
        app = self.app()
        config = uvicorn.Config(
            app,
            http=partial(_TimedProtocol, seconds=self.config.head_timeout, most=self.config.max_connections),  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=self.config.grace,
            callback_notify=self._expire,
            timeout_notify=60,
        )
        _Uvicorn(config, self).run(sockets=[self._socket])

    async def _expire(self) -> None:
        if self._kept is not None:
            self._kept.expire()

    def release(self) -> None:
        """Give up what is still computed, so that nothing waits for it."""
        if self._engine is not None:
            self._engine.close(wait=0)

    def leave(self) -> None:
        """End the process: something does not let go of it, such as a file that never ends."""
        logger.error("requests under way did not end: the server ends without them")
        self._delete()
        os._exit(0)


class _Uvicorn(uvicorn.Server):
    """Ends in time and quietly: uvicorn would raise the signal anew once it is done."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
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
        """Wait for a head, unless one is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self._seconds, self.transport.abort)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _listening(host: str, port: int) -> socket.socket:
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


def _names(models: Sequence[str]) -> list[str]:
    """Names of folders, as short as tells them apart."""
    paths = [Path(model).resolve() for model in models]
    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise SpiritLMError("a model is given twice")


def _warm(name: str, spirit: SpiritLM) -> None:
    """Load what else there is, so that nobody waits for it and what is broken is known at once."""
    try:
        tokenizer = spirit.speech_tokenizer
    except ModelReferenceError as error:
        logger.warning("%s takes no recordings: %s", name, error)
        return
    if tokenizer.has_vocoder:
        _ = tokenizer.vocoder
