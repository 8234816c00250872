"""Results of commands: all of standard output, even if the work dies, and reports in folders."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from spiritlm_core.errors import SpiritLMError

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM


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


def tell_doubt(spirit: SpiritLM, task: str, *, shots: bool) -> None:
    """A line on standard error where the model's own evaluation says that it is no good at `task`."""
    from spiritlm_core.metrics.verdicts import doubt

    if sentence := doubt(spirit.verdicts, task, shots=shots):
        typer.echo(f"spiritlm: {sentence}", err=True)


def check_out(out: Path | None) -> None:
    """Say now, and not after an hour of work, that a report cannot be put into `out`. Raises SpiritLMError."""
    if out is None:
        return
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise SpiritLMError(f"--out {out}: {there} is not a folder")
    if not os.access(there, os.W_OK):
        raise SpiritLMError(f"--out {out}: nothing can be written into {there}")


def read_report(folder: Path, name: str, out: Path | None) -> dict[str, Any]:
    """``NAME.json`` of an artifact, whose files ``NAME.*`` are copied into `out`."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(f"{name}.*")):
            shutil.copyfile(path, out / path.name)
    report: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return report


def fetched_reference(given: str) -> str:
    """A judge, named by a reference or a folder, as a reference; fetched now, and not after an hour of work.

    Raises:
        ModelReferenceError: nothing is there.
    """
    from spiritlm_core.references.reference import as_reference, resolve

    reference = as_reference(given)
    resolve(reference)
    return reference
