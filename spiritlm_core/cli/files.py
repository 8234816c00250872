"""Files named on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer


def is_file(name: str) -> bool:
    """Whether `name` names a file; a long text is no file name."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def check_any(names: Iterable[str]) -> None:
    """Whether there is work at all, before a model is loaded for it; ``-`` is standard input.

    Raises:
        SpiritLMError: none of the files is there.
    """
    from spiritlm_core.errors import SpiritLMError

    given = list(names)
    if not any(name == "-" or is_file(name) for name in given):
        raise SpiritLMError("\n".join(f"{name}: there is no such file" for name in given))


def complain(name: str, error: Exception) -> None:
    """Say on standard error what is wrong with one of the files."""
    typer.echo(f"spiritlm: {error if name in str(error) else f'{name}: {error}'}", err=True)
