"""Answers in pieces: what the engine's thread gives, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from spiritlm_core.lm.generate.content import Segment
from spiritlm_core.lm.generate.speaking import Sound
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.engine import Engine, Ticket
from spiritlm_core.serve.errors import INTERNAL, as_request_error, closing, late
from spiritlm_core.serve.replies import Reply, event

T = TypeVar("T")
Piece = Segment | Sound | Reply
Give = Callable[[Segment | Sound], None]


class Pieces:
    """The pieces of one answer while they come, in the server's loop, within `timeout` seconds; the last is it all."""

    def __init__(
        self, engine: Engine, work: Callable[[SpiritLM, Give], Reply], model: str | None, timeout: float
    ) -> None:
        self._coming: asyncio.Queue[Segment | Sound | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._timeout, self._deadline = timeout, self._loop.time() + timeout
        self.ticket: Ticket[Reply] = engine.submit(lambda spirit: work(spirit, self._give), model)
        self.ticket.future.add_done_callback(lambda _: self._give(None))

    def _give(self, piece: Segment | Sound | None) -> None:
        """Called by the engine's thread."""
        self._loop.call_soon_threadsafe(self._coming.put_nowait, piece)

    async def next(self) -> Piece:
        """The next piece.

        Raises:
            RequestError: something in the request cannot be used, or it takes too long.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                piece = await self._coming.get()
        except TimeoutError as error:
            raise late(self._timeout) from error
        return result(self.ticket.future) if piece is None else piece


async def events(first: Piece, rest: Pieces, model: str) -> AsyncIterator[str]:
    """Server-sent events of an answer whose first piece is there; what goes wrong behind it is an event, too."""
    try:
        yield _written(*event(first, model))
        while not isinstance(first, Reply):
            first = await rest.next()
            yield _written(*event(first, model))
    except Exception as error:  # noqa: BLE001 - the status is sent already
        yield _written("error", (as_request_error(error) or INTERNAL).to_dict())


def _written(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events that give back the place of their request however they end.

    Also if the client leaves before the first of them, or does not read them: then they end after `seconds`.
    """

    def __init__(self, events: AsyncIterator[str], held: ExitStack, seconds: float) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._held, self._seconds = held, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        with self._held:
            try:
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                return  # nobody reads: the connection is closed


def result(done: asyncio.Future[T] | Future[T]) -> T:
    """What work that is over came to.

    Raises:
        RequestError: it was not done, or something in the request cannot be used.
    """
    if done.cancelled():
        raise closing()
    error = done.exception()
    if error is not None:
        raise as_request_error(error) or error
    return done.result()
