"""What evaluations need before they begin, and where their reports go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def check_out(out: Path | None) -> None:
    """Say now, and not after an hour of work, that a report cannot be put into `out`. Raises SpiritLMError."""
    from spiritlm_core.errors import SpiritLMError

    if out is None:
        return
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise SpiritLMError(f"--out {out}: {there} is not a folder")
    if not os.access(there, os.W_OK):
        raise SpiritLMError(f"--out {out}: nothing can be written into {there}")


def copy_report(folder: Path, out: Path, name: str) -> None:
    """Copy the files ``NAME.*`` of an artifact into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob(f"{name}.*")):
        shutil.copyfile(path, out / path.name)


def fetched_reference(given: str) -> str:
    """A judge, named by a reference or a folder, as a reference; fetched now, and not after an hour of work.

    Raises:
        ModelReferenceError: nothing is there.
    """
    from spiritlm_core.references.reference import as_reference, resolve

    reference = as_reference(given)
    resolve(reference)
    return reference
