"""What every route does: take a place, read the request, queue the work, and give the answer whole or in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Protocol, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from spiritlm_core.lm.generate.content import Segment
from spiritlm_core.lm.generate.speaking import Sound
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import INTERNAL, RequestError, ServeConfig, as_request_error, closing, gone, late
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.service import RequestHandler

T = TypeVar("T")
Piece = Segment | Sound | Reply
Give = Callable[[Segment | Sound], None]
Files = dict[str, bytes]  # uploaded files by the names of their fields


class Writing(Protocol):
    """How the pieces of an answer are sent while they come."""

    media_type: str

    def write(self, piece: Piece) -> str | bytes:
        """What is sent of a piece; the last is the whole answer."""

    def fail(self, error: RequestError) -> str | bytes:
        """What is sent of an error behind the first piece, when the status is sent already."""


class Pieces:
    """The pieces of one answer while they come, in the server's loop, within `timeout` seconds; the last is it all."""

    def __init__(
        self, engine: Engine, work: Callable[[SpiritLM, Give], Reply], model: str | None, timeout: float
    ) -> None:
        self._coming: asyncio.Queue[Segment | Sound | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._timeout, self._deadline = timeout, self._loop.time() + timeout
        self.ticket = engine.submit(lambda spirit: work(spirit, self._give), model)
        self.ticket.future.add_done_callback(lambda _: self._give(None))

    def _give(self, piece: Segment | Sound | None) -> None:
        """Called by the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the server has ended, and its loop with it
            self._loop.call_soon_threadsafe(self._coming.put_nowait, piece)

    async def next(self) -> Piece:
        """The next piece. Raises RequestError: something in the request cannot be used, or it takes too long."""
        try:
            async with asyncio.timeout_at(self._deadline):
                piece = await self._coming.get()
        except TimeoutError as error:
            raise late(self._timeout) from error
        return result(self.ticket.future) if piece is None else piece


async def written(first: Piece, rest: Pieces, how: Writing) -> AsyncIterator[str | bytes]:
    """What is sent of an answer whose first piece is there; what goes wrong behind it is sent, too."""
    try:
        yield how.write(first)
        while not isinstance(first, Reply):
            first = await rest.next()
            if chunk := how.write(first):
                yield chunk
    except Exception as error:  # noqa: BLE001 - the status is sent already
        yield how.fail(as_request_error(error) or INTERNAL)


class Streamed(StreamingResponse):
    """An answer in pieces that gives back the place of its request however it ends.

    Also if the client leaves before the first of them, or does not read them: then they end after `seconds`.
    """

    def __init__(self, chunks: AsyncIterator[str | bytes], kind: str, held: ExitStack, seconds: float) -> None:
        super().__init__(chunks, media_type=kind, headers={"Cache-Control": "no-store"})
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

    Raises RequestError: it was not done, or something in the request cannot be used.
    """
    if done.cancelled():
        raise closing()
    error = done.exception()
    if error is not None:
        raise as_request_error(error) or error
    return done.result()


class Asking:
    """Asks the models of `engine`. Each route takes a place first, then reads the body, then asks."""

    def __init__(self, engine: Engine, config: ServeConfig) -> None:
        self.engine, self.config = engine, config

    async def done(self, request: Request, model: str | None, files: Files, work: Callable[[RequestHandler], T]) -> T:
        """The result of `work`, unless it takes too long or the client goes away."""
        ticket = self.engine.submit(lambda spirit: work(RequestHandler(spirit, self.config, files)), model)
        done: asyncio.Future[T] = asyncio.wrap_future(ticket.future)
        leaving = asyncio.ensure_future(_gone(request))
        either: set[asyncio.Future[T] | asyncio.Future[None]] = {done, leaving}
        try:
            await asyncio.wait(either, timeout=self.config.timeout, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return result(done)
            if leaving.done():
                raise gone()
            raise late(self.config.timeout)
        finally:
            leaving.cancel()
            ticket.give_up()

    async def streamed(
        self,
        model: str | None,
        files: Files,
        work: Callable[[RequestHandler, Give], Reply],
        how: Writing,
        held: ExitStack,
        begins: Callable[[Piece], bool] = lambda _: True,
    ) -> Streamed:
        """The answer in pieces; what is wrong with the request is said before the first that `begins`, with a status.

        `held` has the place of the request, which is given back when the answer ends.
        """
        try:
            pieces = self.pieces(model, files, work)
            held.callback(pieces.ticket.give_up)
            while not begins(first := await pieces.next()):
                pass
        except BaseException:
            held.close()
            raise
        return Streamed(written(first, pieces, how), how.media_type, held, 2 * self.config.timeout)

    def pieces(self, model: str | None, files: Files, work: Callable[[RequestHandler, Give], Reply]) -> Pieces:
        """The pieces of the answer that `work` gives."""

        def asked(spirit: SpiritLM, give: Give) -> Reply:
            return work(RequestHandler(spirit, self.config, files), give)

        return Pieces(self.engine, asked, model, self.config.timeout)


async def _gone(request: Request) -> None:
    """Returns when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
