"""Files of the page, uploads and answers: they lie in one folder, as long and as many as there is room for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from spiritlm_core.serve.errors import RequestError

_PREFIX = "spiritlm-page-"
_NAME = 80  # characters of a file's name that are kept
_OLDEST = 3600.0  # seconds


class Kept:
    """A temporary folder, which ends with the server. An upload belongs to one session.

    Args:
        most: bytes that all of it may take; the oldest files go first, and those of more than an hour.

    Attributes:
        folder: where it is.
    """

    def __init__(self, most: int) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        self._most, self._lock = most, threading.Lock()
        self._held = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self._owners: dict[str, str | None] = {}

    def close(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._held)

    def upload(self, name: str, data: bytes) -> Path:
        """Keep a file that somebody sent; the first session that uses it owns it."""
        path = self.add(name, data)
        self._owners[str(path)] = None
        return path

    def add(self, name: str, data: bytes) -> Path:
        """Keep a file under a path that nobody can guess.

        Raises:
            RequestError: it alone is larger than all may be.
        """
        if len(data) > self._most:
            raise RequestError(507, "full", "the file is larger than all that this server keeps")
        with self._lock:
            self._make_room(len(data))
            folder = self.folder / secrets.token_urlsafe(18)
            folder.mkdir()
            path = folder / _plain(name)
            path.write_bytes(data)
        return path

    def claim(self, path: str, session: str) -> None:
        """Let `session` use an upload.

        Raises:
            RequestError: `path` is no upload, or that of another session.
        """
        with self._lock:
            if self._owners.get(path, "") in (None, session) and Path(path).is_file():
                self._owners[path] = session
                return
        raise not_uploaded()

    def holds(self, path: str) -> bool:
        """Whether it is a file of this folder; links lead nowhere."""
        try:
            file = Path(path).resolve()
            return str(file) == path and file.is_relative_to(self.folder) and file.is_file()
        except (OSError, ValueError):
            return False

    def expire(self) -> None:
        """Delete what is too old."""
        with self._lock:
            self._make_room(0)

    def _make_room(self, size: int) -> None:
        """Delete what is too old, and the oldest until `size` bytes more can be kept."""
        files = [(path.stat(), path) for path in self.folder.rglob("*") if path.is_file()]
        files.sort(key=lambda pair: pair[0].st_mtime)
        total, now = size + sum(stat.st_size for stat, _ in files), time.time()
        for stat, path in files:
            if total <= self._most and stat.st_mtime > now - _OLDEST:
                break
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            self._owners.pop(str(path), None)
            total -= stat.st_size


def not_uploaded() -> RequestError:
    """A request of the page that names some other file."""
    return RequestError(403, "not_uploaded", "a file of a request must be one that its page has uploaded", "data")


def _plain(name: str) -> str:
    """The last part of a name, without what is no letter, digit, or one of ``._- ``."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isalnum() or char in "._- ").strip(" .")
    return kept[-_NAME:] or "file"


def _sweep(parent: Path) -> None:
    """Delete the folders of servers that were killed: nobody holds their locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(held).st_mtime > 60:  # one that is just being made has no lock yet
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)
