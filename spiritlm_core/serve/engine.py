"""One thread that owns the models, a bounded queue in front of it, and answers in pieces as server-sent events."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, TypeVar

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from spiritlm_core.lm.generate.content import Segment
from spiritlm_core.lm.generate.speaking import Sound
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.errors import INTERNAL, RequestError, as_request_error, closing, late
from spiritlm_core.serve.replies import Reply, event

T = TypeVar("T")


class Ticket(Generic[T]):
    """Work for a model that waits or is under way; its result is that of `future`."""

    def __init__(self, work: Callable[[SpiritLM], T], model: str) -> None:
        self.future: Future[T] = Future()
        self.model, self._given_up = model, threading.Event()
        self._work: Callable[[SpiritLM], T] | None = work

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._given_up.is_set()

    def give_up(self) -> None:
        """Take it out of the queue, or end it before the next token."""
        self._given_up.set()
        if self.future.cancel():
            self._work = None  # and with it the recordings in it

    def run(self, spirit: SpiritLM) -> None:
        """Do the work; what goes wrong is the future's."""
        work = self._work
        if not self.future.set_running_or_notify_cancel() or work is None:
            return
        try:
            result = work(spirit)
        except BaseException as error:  # noqa: BLE001 - the thread lives on, the caller is told
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Engine:
    """Models behind a queue: what is asked of them is computed one by one, in the order in which it comes.

    Whoever asks first takes one of the places (:meth:`place`), before it even reads the body of a request, so that
    neither work nor bodies ever take more memory than the places allow. `default` is the first model, `depth` the
    requests that have a place.
    """

    def __init__(self, models: Mapping[str, SpiritLM], places: int) -> None:
        self.models, self.places, self.depth = dict(models), places, 0
        self.default = next(iter(self.models))
        self._waiting: deque[Ticket[Any]] = deque()
        self._changed = threading.Condition()
        self._seconds, self._closed = 1.0, False
        self._current: Ticket[Any] | None = None
        self._hooks = [spirit.model.register_forward_pre_hook(self._look_up) for spirit in self.models.values()]
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether work is taken."""
        return self._thread.is_alive() and not self._closed

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request. Raises RequestError: there is none (429), or the server is being ended (503)."""
        with self._changed:
            if self._closed:
                raise closing()
            if self.depth >= self.places:
                seconds = max(1, math.ceil(self._seconds))  # as long as one request took, lately
                raise RequestError(429, "busy", f"the queue is full: try again in {seconds} s", retry_after=seconds)
            self.depth += 1
        try:
            yield
        finally:
            with self._changed:
                self.depth -= 1

    def submit(self, work: Callable[[SpiritLM], T], model: str | None = None) -> Ticket[T]:
        """Queue `work`, which is given the model; the caller holds a place.

        Raises RequestError: there is no such model (404), or the server is being ended (503).
        """
        ticket = Ticket(work, self.name(model))
        with self._changed:
            if self._closed:
                raise closing()
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def call(self, work: Callable[[SpiritLM], T], model: str | None, timeout: float) -> T:
        """The result of `work`, for callers that are threads.

        Raises RequestError: there is no place, no such model, or it takes too long.
        """
        with self.place():
            ticket = self.submit(work, model)
            try:
                return ticket.future.result(timeout)
            except TimeoutError as error:
                if ticket.future.done():
                    raise
                raise late(timeout) from error
            finally:
                ticket.give_up()

    def name(self, model: str | None) -> str:
        """The model that is meant; the default if None. Raises RequestError: there is none of that name."""
        if model is not None and model not in self.models:
            known = ", ".join(self.models)
            raise RequestError(404, "no_such_model", f"there is no model {model!r:.60}: there is {known}", "model")
        return model or self.default

    def close(self, wait: float = 5.0) -> None:
        """Give up all work and end the thread, which takes until the next token."""
        with self._changed:
            self._closed = True
            for ticket in (*self._waiting, self._current):
                if ticket is not None:
                    ticket.give_up()
            self._changed.notify()
        self._thread.join(wait)
        for hook in self._hooks:
            hook.remove()

    def _run(self) -> None:
        while (ticket := self._next()) is not None:
            started = time.monotonic()
            ticket.run(self.models[ticket.model])
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)
            self._current = ticket = None

    def _next(self) -> Ticket[Any] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _look_up(self, *_: object) -> None:
        """Before each forward pass, that is each token: does anybody still wait?"""
        current = self._current
        if current is not None and current.given_up and threading.current_thread() is self._thread:
            raise closing()


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
        """The next piece. Raises RequestError: something in the request cannot be used, or it takes too long."""
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

    Raises RequestError: it was not done, or something in the request cannot be used.
    """
    if done.cancelled():
        raise closing()
    error = done.exception()
    if error is not None:
        raise as_request_error(error) or error
    return done.result()
