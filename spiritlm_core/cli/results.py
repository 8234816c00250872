"""What a command has worked out is all of standard output, even if the work dies."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


def answer(
    work: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any], TextIO], None], *, as_json: bool
) -> None:
    """Do `work` and print its result, as JSON or as `show` does; under ``seconds`` it says how long that took."""
    began = time.monotonic()
    with stdout_for_results() as out:
        result = work()
        result["seconds"] = round(time.monotonic() - began, 1)
        if as_json:
            print(json.dumps(result, allow_nan=False), file=out)
        else:
            show(result, out)


@contextmanager
def stdout_for_results() -> Iterator[TextIO]:
    """Standard output for the result alone: whatever a library prints meanwhile goes to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(saved), "w", encoding="utf-8") as out:
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
