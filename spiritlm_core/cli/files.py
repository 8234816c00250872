"""Files named on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from spiritlm_core.errors import ModelReferenceError, SpiritLMError


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
    given = list(names)
    if not any(name == "-" or is_file(name) for name in given):
        raise SpiritLMError("\n".join(f"{name}: there is no such file" for name in given))


def content(name: str) -> bytes | Path:
    """What a command reads for a name: the file, or for ``-`` the bytes of standard input."""
    return sys.stdin.buffer.read() if name == "-" else Path(name)


class Failures:
    """What cannot be done of several: each is named on standard error, the others are still done."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Go on after an error of this one. Raises ModelReferenceError, which concerns all of them."""
        try:
            yield
        except ModelReferenceError:
            raise
        except SpiritLMError as error:
            self._count += 1
            typer.echo(f"spiritlm: {error if name in str(error) else f'{name}: {error}'}", err=True)

    def leave(self) -> NoReturn:
        """End the command: its exit status is 1 if anything could not be done."""
        raise typer.Exit(1 if self._count else 0)
