"""Where bytes lie: a local folder or an S3 prefix. The only module that knows URIs.

Paths inside a store are relative, joined by ``/``. A write is visible whole or not at all: locally a
temporary file and ``os.replace``, on S3 one PUT or one completed multipart upload.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from spiritlm_core.errors import LakeError

_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class Entry:
    """One object: its path in the store, its size in bytes, and a token that changes with its content."""

    path: str
    size: int
    version: str


class Store(ABC):
    """A flat space of named byte strings."""

    uri: str

    @abstractmethod
    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """Every object below `prefix` (a folder), sorted by path; nothing if there is none."""

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

    def read(self, path: str) -> bytes:
        """The bytes of an object. Raises FileNotFoundError."""
        with self.open(path) as stream:
            return stream.read()

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
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise LakeError(f"{path!r} is not a path inside the store {self.uri}")
        return self.root.joinpath(*parts)

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """See :meth:`Store.walk`. Symbolic links to files are listed, links to folders are not followed."""
        yield from self._walk(self.root.joinpath(*PurePosixPath(prefix).parts))

    def _walk(self, folder: Path) -> Iterator[Entry]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path))
            elif not entry.name.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, or a dangling link
                    stat = entry.stat()
                    path = Path(entry.path).relative_to(self.root).as_posix()
                    yield Entry(path, stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}")

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
        """See :meth:`Store.create`. A hard link is the one local call that fails if the name is taken."""
        if self.exists(path):
            return False
        with self._temporary(path, data) as temporary:
            try:
                os.link(temporary, self._path(path))
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def _temporary(self, path: str, data: bytes) -> Iterator[Path]:
        folder = self._path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
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

    def local_path(self, path: str) -> Path | None:
        """See :meth:`Store.local_path`."""
        return self._path(path)

    def sweep(self, older_than: float) -> list[str]:
        """Remove temporary files that a killed writer left before `older_than` (seconds since the epoch)."""
        found = [p for p in self.root.rglob(f"{_TEMPORARY}*") if p.is_file() and p.stat().st_mtime < older_than]
        for path in found:
            path.unlink(missing_ok=True)
        return [path.relative_to(self.root).as_posix() for path in found]


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
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise LakeError(f"{path!r} is not a path inside the store {self.uri}")
        return f"{self.root}/{path}"

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """See :meth:`Store.walk`. Folder markers (zero bytes, name ends in ``/``) are left out."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError), _s3_errors(self.uri):
            found = self._files.find(f"{self.root}/{prefix}".rstrip("/"), detail=True)
        for name, info in sorted(found.items()):
            if info.get("type") == "file" and not name.endswith("/") and name.startswith(f"{self.root}/"):
                yield Entry(name[len(self.root) + 1 :], int(info["size"]), str(info.get("ETag", "")).strip('"'))

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
