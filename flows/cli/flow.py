"""Commands that run a flow: with a Prefect API, and a result, which is all of standard output, even if that dies."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO


def run_flow(module: str, name: str, *args: Any) -> dict[str, Any]:
    """Run the flow `name` of `flows.MODULE`; its result, and under ``startup_seconds`` how long Prefect took to start.

    Check what can be wrong before: this starts a server. Raises SpiritLMError if the flow fails.
    """
    from tasks.prefect_server import api

    began = time.monotonic()
    with api(load=f"flows.{module}"):
        flow = getattr(import_module(f"flows.{module}"), name)
        from tasks.flow_runs import run_flow as run

        ready = time.monotonic()
        return {**run(flow, *args), "startup_seconds": round(ready - began, 1)}


def artifact_folder(lake: str, result: dict[str, Any], stage: str) -> Path:
    """The files of `stage` in the result of a flow, on this machine. Raises LakeError."""
    from spiritlm_core.errors import LakeError
    from spiritlm_core.lake.lake import Lake

    opened, key = Lake(lake), result["stages"][stage]["fingerprint"]
    artifact = opened.read_artifact(stage, key)
    if artifact is None:
        raise LakeError(f"{opened.uri} has no {stage} {key[:12]} any more; run again")
    return opened.artifact_folder(artifact)


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
