"""Files of this machine: their digests, and files and folders that others see whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from spiritlm_core.errors import ModelReferenceError

TEMPORARY = ".tmp-"  # how the name of what is not finished begins


def cache_folder() -> Path:
    """Where this machine keeps copies of remote files: ``$XDG_CACHE_HOME/spiritlm`` or ``~/.cache/spiritlm``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spiritlm"


@contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """An empty file that one process of this machine has at a time; the others wait.

    The lock ends with the process, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        yield file


def is_locked(path: Path) -> bool:
    """Whether a process that lives has the file as :func:`locked` gives it."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read piece by piece."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_intact(path: Path, sha256: str) -> bool:
    """Whether the file is there and its bytes have this sha256; looked at once per process and state of the file."""

    def check(file: Path) -> None:
        if not file.is_file() or file_sha256(file) != sha256:  # a pipe would be waited for
            raise ValueError(f"{file} is damaged")

    try:
        check_once(path, check, sha256)
    except (ValueError, OSError):
        return False
    return True


_checked: dict[Path, tuple[object, ...]] = {}


def check_once(path: Path, check: Callable[[Path], None], expected: str = "") -> None:
    """Call ``check(path)`` unless this process did for this very state of the file; it raises what `check` raises."""
    stat = os.stat(path)  # noqa: PTH116 - one call for all of it
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, expected)
    if _checked.get(path) != state:
        check(path)
        _checked[path] = state


@contextmanager
def written(path: Path, data: bytes, *, sync: bool = False) -> Iterator[Path]:
    """A temporary file with `data` beside `path`, to be renamed; else it goes. `sync`: the data is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(0o644)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see it whole or not at all."""
    with written(path, data) as temporary:
        temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model. Raises ModelReferenceError if there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelReferenceError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ModelReferenceError(f"{path}: not a JSON object")
    return values


def write_json(path: Path, value: Any) -> None:
    """Write UTF-8 JSON that people can read, as :func:`write_atomically`. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


@contextmanager
def new_entry(target: Path) -> Iterator[Path]:
    """A scratch folder whose ``content`` becomes `target` when the block ends well.

    Of several processes that fill the same entry at once the first wins, the others use its copy.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=TEMPORARY))
    try:
        yield scratch
        try:
            (scratch / "content").rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A path beside `target` for a folder that takes its place, and that of an older one, when the block ends well.

    Raises OSError, as where another process was quicker.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        fresh, old = Path(work) / "new", Path(work) / "old"
        yield fresh
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
