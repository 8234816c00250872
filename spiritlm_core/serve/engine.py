"""One thread that owns the models, and a bounded queue in front of it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.serve.errors import RequestError, closing, late

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
    requests that have a place, `steps` the forward passes of each model so far, `busy` the seconds that models worked.
    """

    def __init__(self, models: Mapping[str, SpiritLM], places: int) -> None:
        self.models, self.places, self.depth = dict(models), places, 0
        self.default = next(iter(self.models))
        self._waiting: deque[Ticket[Any]] = deque()
        self._changed = threading.Condition()
        self._seconds, self._closed = 1.0, False
        self.steps, self.busy = dict.fromkeys(self.models, 0), 0.0
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
            self.busy += time.monotonic() - started
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
        if current is not None and threading.current_thread() is self._thread:
            self.steps[current.model] += 1
            if current.given_up:
                raise closing()
