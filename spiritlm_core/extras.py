"""Which extra of the package brings a library that is not installed."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from spiritlm_core.errors import SpiritLMError

PACKAGE = "spiritlm-pipeline"
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Modules that are not called as what installs them."""


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
