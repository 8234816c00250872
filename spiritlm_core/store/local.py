"""A store in a folder. A write is a temporary file that is renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spiritlm_core.errors import FULL, LakeError
from spiritlm_core.files import TEMPORARY, locked, written
from spiritlm_core.names import stays_inside
from spiritlm_core.store.objects import Entry, Store

_STRANGERS = re.compile(r"\.DS_Store|\._.*|\.nfs.*|\.fuse_hidden.*|Thumbs\.db|desktop\.ini", re.DOTALL)
"""Names of what desktops and network file systems put into any folder: no objects of ours."""
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})  # what the system says where nothing may be written


class LocalStore(Store):
    """A folder on this machine (or on a file system that all machines share)."""

    def __init__(self, root: Path) -> None:
        """`root` need not exist yet."""
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def _path(self, path: str) -> Path:
        if not stays_inside(path):
            raise LakeError(f"{path!r} is not a path inside the store {self.uri}")
        return self.root / path

    def walk(self, prefix: str = "", *, everything: bool = False) -> Iterator[Entry]:
        """See :meth:`Store.walk`. Links to files are listed, links to folders are not followed (but `prefix` is).

        Raises LakeError where `prefix` is there and is no folder: a disk that is not mounted now is not an empty one.
        """
        for folder in (self.root, self.root / prefix) if prefix else ():
            if os.path.lexists(folder) and not folder.is_dir():
                raise LakeError(f"{folder} is no folder, or a link to one that is out of reach")
        yield from self._walk(str(self.root / prefix), everything)

    def _walk(self, folder: str, everything: bool) -> Iterator[Entry]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if _STRANGERS.fullmatch(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(entry.path, everything)
            elif everything or (os.path.isfile(entry) and not entry.name.startswith(TEMPORARY)):  # noqa: PTH113
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    yield self._entry(entry)

    def _entry(self, file: os.DirEntry[str]) -> Entry:
        about = file.stat(follow_symlinks=False)
        version = f"{about.st_mtime_ns}-{about.st_ino}"
        path = file.path[len(str(self.root)) :].lstrip("/")
        return Entry(path, about.st_size, version, about.st_mtime, link=not stat.S_ISREG(about.st_mode))

    def open(self, path: str) -> BinaryIO:
        """See :meth:`Store.open`."""
        if not self.exists(path):  # a pipe would be waited for
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path(path)))
        return self._path(path).open("rb")

    def exists(self, path: str) -> bool:
        """See :meth:`Store.exists`."""
        return self._path(path).is_file()

    def modified(self, path: str) -> float:
        """See :meth:`Store.modified`."""
        return self._path(path).stat().st_mtime

    def write(self, path: str, data: bytes) -> None:
        """See :meth:`Store.write`."""
        with self._temporary(path, data) as temporary:
            temporary.replace(self._path(path))

    def create(self, path: str, data: bytes) -> bool:
        """See :meth:`Store.create`."""
        if self.exists(path):
            return False
        with self._temporary(path, data) as temporary:
            return _claim(temporary, self._path(path))

    @contextlib.contextmanager
    def _temporary(self, path: str, data: bytes) -> Iterator[Path]:
        try:
            with written(self._path(path), data, sync=True) as temporary:
                yield temporary
        except OSError as error:
            if error.errno in {*READ_ONLY, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}:
                folder = self._path(path).parent
                raise LakeError(f"{self.uri} cannot be written to ({error.strerror} at {folder})") from error
            if error.errno in FULL:
                freed = f"free some ({self._path('cache')} may go when nothing runs), and start it again"
                raise LakeError(f"{self.uri} cannot be written to ({error.strerror}): {freed}") from error
            raise

    def delete(self, path: str) -> None:
        """See :meth:`Store.delete`."""
        self._path(path).unlink(missing_ok=True)

    def now(self) -> float:
        """See :meth:`Store.now`: the stamp of a new file without a name in the store; this clock if it is read-only."""
        try:
            with tempfile.TemporaryFile(dir=self.root) as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:
            return time.time()

    def fetch(self, path: str, target: Path) -> None:
        """See :meth:`Store.fetch`; a hard link where the file system has them."""
        try:
            os.link(self._path(path), target)
        except OSError:
            super().fetch(path, target)

    def local_path(self, path: str) -> Path | None:
        """See :meth:`Store.local_path`."""
        return self._path(path) if self.exists(path) else None

    def prune(self, folder: str) -> None:
        """Remove what is empty below `folder`."""
        for below, _, _ in os.walk(self.root / folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(below).rmdir()


def _claim(temporary: Path, path: Path) -> bool:
    """Give a file the name `path` unless that is taken: a hard link is the one local call that fails if it is."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links on this file system: then one writer at a time
        with locked(path.parent / f"{TEMPORARY}{path.name}.lock"):
            if path.exists():
                return False
            temporary.replace(path)
    return True
