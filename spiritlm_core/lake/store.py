"""Where bytes lie: a local folder or an S3 prefix. The only module that knows URIs.

Paths inside a store are relative, joined by ``/``. A write is visible whole or not at all: locally a
temporary file and ``os.replace``, on S3 one PUT or one completed multipart upload.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from spiritlm_core.errors import LakeError
from spiritlm_core.names import stays_inside

_TEMPORARY = ".tmp-"
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""What the system says where nothing may be written."""


@dataclass(frozen=True)
class Entry:
    """One object: its path in the store, its size in bytes, and a token that changes with its content.

    `modified` is the time of the last write by the store's own clock, in seconds since the epoch. `link` says that
    a symbolic link is there, not the object itself.
    """

    path: str
    size: int
    version: str
    modified: float = 0.0
    link: bool = False

    @property
    def temporary(self) -> bool:
        """Whether this is no object yet, but what a writer has put down so far."""
        return any(part.startswith(_TEMPORARY) for part in self.path.split("/"))


class Store(ABC):
    """A flat space of named byte strings."""

    uri: str

    @abstractmethod
    def walk(self, prefix: str = "", *, everything: bool = False) -> Iterator[Entry]:
        """Every object below `prefix` (a folder), sorted by path; nothing if there is none.

        With `everything` also what is no object: temporary files of writers, and links that lead to no file.
        """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open an object for reading (seekable). Raises FileNotFoundError."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether the object is there, complete."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write or replace an object, atomically."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists; of several writers exactly one gets True."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; no error if it is not there."""

    @abstractmethod
    def modified(self, path: str) -> float:
        """Time of the last write, in seconds since the epoch."""

    @abstractmethod
    def now(self) -> float:
        """The time by the clock that stamps `modified`, which need not be this machine's."""

    def read(self, path: str) -> bytes:
        """The bytes of an object. Raises FileNotFoundError."""
        with self.open(path) as stream:
            return stream.read()

    def sha256(self, path: str) -> str:
        """The sha256 of an object's bytes, read piece by piece. Raises FileNotFoundError."""
        with self.open(path) as stream:
            return hashlib.file_digest(cast("Any", stream), "sha256").hexdigest()

    def fetch(self, path: str, target: Path) -> None:
        """Put an object's bytes into the file `target`, which is not there yet. Raises FileNotFoundError."""
        with self.open(path) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1 << 22)

    def local_path(self, path: str) -> Path | None:
        """The object as a local file, or None if it is remote."""
        del path
        return None

    def child(self, path: str) -> str:
        """The full URI of an object."""
        return f"{self.uri.rstrip('/')}/{path}"


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
        """See :meth:`Store.walk`. Links to files are listed, links to folders are not followed (but `prefix` is)."""
        yield from self._walk(self.root / prefix, everything)

    def _walk(self, folder: Path, everything: bool) -> Iterator[Entry]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), everything)
            elif everything or (entry.is_file() and not entry.name.startswith(_TEMPORARY)):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    yield self._entry(entry)

    def _entry(self, found: os.DirEntry[str]) -> Entry:
        about = found.stat(follow_symlinks=False)
        version = f"{about.st_mtime_ns}-{about.st_ino}"
        path = Path(found.path).relative_to(self.root).as_posix()
        return Entry(path, about.st_size, version, about.st_mtime, link=stat.S_ISLNK(about.st_mode))

    def open(self, path: str) -> BinaryIO:
        """See :meth:`Store.open`."""
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
        folder = self._path(path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
        except OSError as error:
            if error.errno in {*READ_ONLY, errno.ENOTDIR, errno.EEXIST}:
                raise LakeError(f"{self.uri} cannot be written to ({error.strerror} at {folder})") from error
            raise
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """See :meth:`Store.delete`."""
        self._path(path).unlink(missing_ok=True)

    def now(self) -> float:
        """See :meth:`Store.now`: the stamp of a new file, which has no name, in the store; this clock if it is read-only."""
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
        return self._path(path)

    def prune(self, folder: str) -> None:
        """Remove what is empty below `folder`."""
        for found, _, _ in os.walk(self.root / folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(found).rmdir()


def _claim(temporary: Path, path: Path) -> bool:
    """Give a file the name `path` unless that is taken: a hard link is the one local call that fails if it is."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links on this file system: then one writer at a time
        with (path.parent / f"{_TEMPORARY}{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return False
            temporary.replace(path)
    return True


class S3Store(Store):
    """A prefix of an S3 bucket; endpoint, region and credentials come from the usual AWS variables."""

    def __init__(self, uri: str) -> None:
        """`uri` is ``s3://bucket`` or ``s3://bucket/prefix``."""
        self.root = uri.removeprefix("s3://").rstrip("/")  # not a URL: "?", "#" and "%" are letters of a key
        if not self.root.partition("/")[0]:
            raise LakeError(f"{uri!r} names no bucket; write s3://BUCKET/PREFIX")
        self.uri = f"s3://{self.root}"

    @property
    def _files(self) -> Any:
        variables = frozenset((key, value) for key, value in os.environ.items() if key.startswith("AWS_"))
        return _s3_client(variables, os.getpid())

    def _path(self, path: str) -> str:
        if not stays_inside(path):
            raise LakeError(f"{path!r} is not a path inside the store {self.uri}")
        return f"{self.root}/{path}"

    def walk(self, prefix: str = "", *, everything: bool = False) -> Iterator[Entry]:  # noqa: ARG002
        """See :meth:`Store.walk`. Folder markers (zero bytes, name ends in ``/``) are left out."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError), _s3_errors(self.uri):
            found = self._files.find(f"{self.root}/{prefix}".rstrip("/"), detail=True)
        for name, info in sorted(found.items()):
            if info.get("type") == "file" and not name.endswith("/") and name.startswith(f"{self.root}/"):
                version, modified = str(info.get("ETag", "")).strip('"'), info["LastModified"].timestamp()
                yield Entry(name[len(self.root) + 1 :], int(info["size"]), version, modified)

    def open(self, path: str) -> BinaryIO:
        """See :meth:`Store.open`."""
        with _s3_errors(self.uri):
            return cast("BinaryIO", self._files.open(self._path(path), "rb"))

    def read(self, path: str) -> bytes:
        """See :meth:`Store.read`; one GET."""
        with _s3_errors(self.uri):
            return cast("bytes", self._files.cat_file(self._path(path)))

    def exists(self, path: str) -> bool:
        """See :meth:`Store.exists`. Not `isfile`: that takes "no access" and "no network" for "no object"."""
        with contextlib.suppress(FileNotFoundError), _s3_errors(self.uri):
            return bool(self._files.info(self._path(path))["type"] == "file")
        return False

    def modified(self, path: str) -> float:
        """See :meth:`Store.modified`."""
        with _s3_errors(self.uri):
            return float(self._files.modified(self._path(path)).timestamp())

    def now(self) -> float:
        """See :meth:`Store.now`: the date of an answer of the server."""
        bucket, _, prefix = self.root.partition("/")
        with _s3_errors(self.uri):
            answer = self._files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def write(self, path: str, data: bytes) -> None:
        """See :meth:`Store.write`."""
        with _s3_errors(self.uri):
            self._files.pipe_file(self._path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """See :meth:`Store.create`: a conditional PUT (``If-None-Match: *``)."""
        if self.exists(path):
            return False
        with _s3_errors(self.uri):
            try:
                self._files.pipe_file(self._path(path), data, mode="create")
            except FileExistsError:
                return False
            except OSError:
                # Some servers refuse the condition with a code that s3fs reports as a plain OSError.
                if self.exists(path):
                    return False
                raise
        return True

    def delete(self, path: str) -> None:
        """See :meth:`Store.delete`."""
        with contextlib.suppress(FileNotFoundError), _s3_errors(self.uri):
            self._files.rm_file(self._path(path))


@cache
def _s3_client(variables: frozenset[tuple[str, str]], process: int) -> Any:
    """One client per process and set of AWS variables: making one takes half a second, and stores are made often."""
    del variables, process
    import s3fs

    # Listings are never cached: another writer's shards must be seen.
    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


_S3_HINT = "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and that the bucket exists"

_SERVER_ERRNOS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)}
"""What s3fs makes of a server's "slow down" and "internal error": a fault of the machine, not of the object."""


@contextlib.contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    """Say which store failed and which variables to look at. A missing object stays a FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        if _error_code(error) == "NoSuchBucket":
            raise LakeError(f"{uri}: {error}; {_S3_HINT}") from error
        raise
    except PermissionError as error:
        raise LakeError(f"{uri}: access denied ({error}); {_S3_HINT}") from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise LakeError(f"{uri}: {type(error).__name__}: {error}; {_S3_HINT}") from error
        if isinstance(error, OSError) and error.errno in _SERVER_ERRNOS:
            raise OSError(errno.EIO, f"{uri}: {error}") from error
        raise


def _error_code(error: BaseException | None) -> str | None:
    """The code in the server's answer, which s3fs keeps as the cause of what it raises."""
    while error is not None:
        if code := getattr(error, "response", {}).get("Error", {}).get("Code"):
            return str(code)
        error = error.__cause__
    return None


def open_store(uri: str | Path) -> Store:
    """Open a store. `uri` is a path, ``file://…`` or ``s3://bucket/prefix``. Raises LakeError for others."""
    text = str(uri)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(text).path)))
    if scheme == "s3":
        return S3Store(text)
    raise LakeError(f"{text!r}: unknown scheme {scheme!r}; use a path, file:// or s3://")


def split_uri(uri: str) -> tuple[Store, str]:
    """The store that holds one object, and the object's path in it."""
    text = uri.removeprefix("file://") if uri.startswith("file://") else uri
    text = unquote(text) if uri.startswith("file://") else text
    parent, _, name = text.rstrip("/").rpartition("/")
    if text.startswith("s3://") and parent.count("/") < 2:
        raise LakeError(f"{uri!r} names a bucket, not an object")
    return open_store(parent or ("/" if text.startswith("/") else ".")), name


def read_uri(uri: str) -> bytes:
    """The bytes of one object. Raises FileNotFoundError."""
    store, name = split_uri(uri)
    return store.read(name)
