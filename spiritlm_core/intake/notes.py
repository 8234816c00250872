"""Notes of listing: what was seen in a source and not used. They are said once, in the summary of the run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(message: str) -> None:
    """Tell whoever listens with :func:`notes`, else the log."""
    heard = _heard.get()
    if heard is None:
        logging.getLogger(__name__).warning(message)
    else:
        heard.append(message)


@contextmanager
def notes() -> Iterator[list[str]]:
    """The notes that are made while the block runs."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def some(names: Iterator[str] | list[str], most: int = 5) -> str:
    """The first of `names`, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
