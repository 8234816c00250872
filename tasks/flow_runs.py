"""What all our flow runs have in common: a name that says something, a log, errors in one sentence, a kept result."""

import functools
import inspect
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from httpx import HTTPError, InvalidURL
from prefect import Flow
from prefect.events.worker import EventsWorker
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run
from pydantic import ValidationError

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.failures import explained, one_line
from tasks.artifacts import FLUSH_SECONDS, updates
from tasks.progress import Console

LOOK_SECONDS = 1.0  # how often it is looked whether somebody wonders

P = ParamSpec("P")
R = TypeVar("R")


def run_name() -> str:
    """Recipe and time, for example ``quickstart-2026-11-25-0300``; called by Prefect inside a flow run."""
    recipe = flow_run.parameters["recipe"]
    name = recipe["name"] if isinstance(recipe, dict) else getattr(recipe, "name", None) or Path(recipe).stem
    return f"{name}-{flow_run.scheduled_start_time.astimezone():%Y-%m-%d-%H%M}"


def log(text: str) -> None:
    """Put a line into the log of the run that is going on, if there is one."""
    try:
        get_run_logger().info("%s", text)
    except MissingContextError:
        return


class _OneLine(logging.Filter):
    """Our errors say what to do; Prefect would put a traceback under them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave the traceback out."""
        if record.exc_info and isinstance(record.exc_info[1], SpiritLMError):
            record.exc_info = record.exc_text = None
        return True


def explaining(function: Callable[P, R]) -> Callable[P, R]:
    """A flow or task that fails with one sentence, wherever it runs; see :func:`spiritlm_core.failures.explained`."""

    @functools.wraps(function)
    def explaining_function(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise explained(error) from error

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_ONE_LINE)
    # Prefect draws its form from the signature, and would look up the names of the types in this module.
    explaining_function.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return explaining_function


_ONE_LINE = _OneLine()


class _Ended:
    """What the last flow of this process came to, whether or not Prefect got to know it."""

    working = False
    result: Any = None
    failure: SpiritLMError | None = None


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """The body of a flow: see `explaining`. Its result is kept for `run_flow`; its views are sent before it ends."""

    @functools.wraps(function)
    def keeping(*args: P.args, **kwargs: P.kwargs) -> R:
        _Ended.result = _Ended.failure = None
        _Ended.working = True
        try:
            _Ended.result = function(*args, **kwargs)
        except Exception as error:
            _Ended.failure = explained(error)
            raise _Ended.failure from error
        finally:
            updates.flush()
            _Ended.working = False
        return cast("R", _Ended.result)

    return explaining(keeping)


def _not_taken(error: Exception) -> Exception:
    """What Prefect says of an API that is not there, or is something else; other errors stay what they are."""
    if not isinstance(error, RuntimeError | HTTPError | InvalidURL | ValidationError):
        return error
    text = f"no Prefect server takes the run ({one_line(error)}): is it up, and PREFECT_API_URL its address?"
    return SpiritLMError(text)


def run_flow(flow: Flow[..., dict[str, Any]], **parameters: Any) -> dict[str, Any]:
    """Run `flow` in this process; its result is returned even if the Prefect server is gone by then.

    Raises SpiritLMError: the flow failed.
    """
    logging.raiseExceptions = False  # or Prefect prints every line of the log that its server does not take
    ended = threading.Event()
    threading.Thread(target=_say_who_waits, args=(ended,), daemon=True).start()
    try:
        state: Any = flow(**parameters, return_state=True)
        return cast("dict[str, Any]", state.result())
    except SpiritLMError:
        raise
    except Exception as error:
        if _Ended.failure is not None:
            raise _Ended.failure from error
        if _Ended.result is None:  # it never began
            raise _not_taken(error) from error
        Console().say(f"the Prefect server died ({one_line(error)}): the run is complete, its record there is not")
        return cast("dict[str, Any]", _Ended.result)
    finally:
        ended.set()
        _send_the_rest()


def _send_the_rest() -> None:
    """Let the server take the last lines of the log and the last events, and say so where it takes its time."""
    with Console().stage("prefect", "the Prefect server takes the end of the log", brief=True):
        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=FLUSH_SECONDS)


def _say_who_waits(ended: threading.Event) -> None:
    """Say now and then that a flow goes on, where no stage does: before, between and after them Prefect is busy."""
    console = Console()
    while not ended.wait(LOOK_SECONDS):
        if console.is_silent:
            between = "  run         … Prefect is told what was made, and results are put in their places"
            console.say(between if _Ended.working else "  prefect     … the Prefect server has not answered yet")
