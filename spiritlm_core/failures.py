"""Errors that nobody foresaw: a sentence for people, the traceback in a file; which extra brings what is missing."""

import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from spiritlm_core.errors import FULL, SpiritLMError

PACKAGE = "spiritlm-pipeline"
_DISTRIBUTIONS = {"piper": "piper-tts", "sklearn": "scikit-learn"}  # modules that are not called as what installs them


class MissingExtraError(SpiritLMError):
    """A library is not installed; the message says how to install it."""


def missing(module: str | None) -> MissingExtraError | None:
    """What to say where `module` cannot be imported; None where no extra brings it."""
    name = (module or "").partition(".")[0]
    distribution = _DISTRIBUTIONS.get(name, name.replace("_", "-"))
    extra = next((extra for library, extra in _brought() if library == distribution), None)
    if extra is None:
        return None
    return MissingExtraError(f"{distribution} is not installed: pip install '{PACKAGE}[{extra}]' brings it")


def require(module: str) -> None:
    """Raise MissingExtraError unless `module` is installed; for what is imported in another process."""
    if find_spec(module) is None and (error := missing(module)):
        raise error


def _brought() -> list[tuple[str, str]]:
    """Each library of an extra, and that extra, as the metadata of the installed package has them."""
    try:
        lines = requires(PACKAGE) or []
    except PackageNotFoundError:
        return []
    pairs = (re.match(r"""([\w.-]+).*;.*\bextra == ["']([\w-]+)["']""", line) for line in lines)
    return [(pair[1], pair[2]) for pair in pairs if pair]


class UnexpectedError(SpiritLMError):
    """Something failed that we did not foresee; the message names the file that holds the traceback."""


def explained(error: Exception) -> SpiritLMError:
    """`error` itself if it says what to do, else one line about it; its traceback is written to a file."""
    if isinstance(error, SpiritLMError):
        return error
    if isinstance(error, ModuleNotFoundError) and (advice := missing(error.name)):
        return advice
    if isinstance(error, OSError) and error.errno in FULL:
        return SpiritLMError(f"{one_line(error)}: free some space, and start it again")
    return UnexpectedError(f"{one_line(error)} (unexpected; {_written(error)})")


def one_line(error: BaseException, limit: int = 300) -> str:
    """What went wrong on one line; what the operating system says, as it says it."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join([error.strerror, *(str(name) for name in (error.filename, error.filename2) if name)])
    else:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}…"


def _written(error: Exception) -> str:
    """Put the traceback where there is room for it; say where it is."""
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shlex.join(sys.argv)}  (pid {os.getpid()})\n\n"
    text = head + "".join(traceback.format_exception(error))
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (_logs(), Path(tempfile.gettempdir()) / "spiritlm"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"the traceback is in {folder / name}"
    return "its traceback could be written nowhere; --debug shows it"


def _logs() -> Path:
    """``$XDG_STATE_HOME/spiritlm`` or ``~/.local/state/spiritlm``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "spiritlm"
