"""What Prefect's views are told: sent by a thread of its own, so that a slow or dead server holds up no work."""

from __future__ import annotations

import atexit
import contextvars
import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from spiritlm_core.failures import one_line
from tasks.progress import Console

REQUEST_SECONDS = 5.0
PAUSE_SECONDS = 30.0
FLUSH_SECONDS = 10.0

Send = Callable[[], Any]


class Updates:
    """A queue of calls to Prefect's API. After one that fails, those of the next half minute are dropped."""

    def __init__(self) -> None:
        """The thread starts with the first call."""
        self._waiting: queue.Queue[tuple[contextvars.Context, Send]] = queue.Queue(maxsize=100)
        self._lock = threading.Lock()
        self._started = False
        self._warned = False
        self._silent_until = 0.0

    def put(self, send: Send) -> None:
        """Have `send` called soon, in a copy of this run's context; its errors cost one warning and nothing else."""
        with self._lock:
            if not self._started:
                threading.Thread(target=self._work, name="prefect-updates", daemon=True).start()
                atexit.register(self._close)  # a thread that Python ends inside a library would abort the process
                self._started = True
        if time.monotonic() >= self._silent_until:
            with suppress(queue.Full):
                self._waiting.put_nowait((contextvars.copy_context(), send))

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is sent, but not longer than this."""
        deadline = time.monotonic() + seconds
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.05)

    def _close(self) -> None:
        self._silent_until = math.inf
        self.flush(REQUEST_SECONDS)

    def _work(self) -> None:
        while True:
            context, send = self._waiting.get()
            try:
                if time.monotonic() >= self._silent_until:
                    context.run(_impatiently, send)
            except Exception as error:  # noqa: BLE001 - a view is never worth the run
                self._failed(error)
            self._waiting.task_done()

    def _failed(self, error: Exception) -> None:
        self._silent_until = max(self._silent_until, time.monotonic() + PAUSE_SECONDS)
        if not self._warned:
            self._warned = True
            Console().say(
                f"the Prefect server does not answer ({one_line(error)}): the run goes on, its views may stop"
            )


def _impatiently(send: Send) -> None:
    """A call with a short limit and no second try."""
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: REQUEST_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}):
        send()


updates = Updates()
"""Those of this process."""
