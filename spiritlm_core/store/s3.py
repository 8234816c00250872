"""A store on S3. A write is one PUT or one completed multipart upload."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from operator import attrgetter
from typing import Any, BinaryIO, TypeVar, cast

from spiritlm_core.errors import LakeError
from spiritlm_core.names import stays_inside
from spiritlm_core.store.objects import Entry, Store

LISTED_AT_A_TIME = 16
_path = attrgetter("path")
T = TypeVar("T")
R = TypeVar("R")


class S3Store(Store):
    """A prefix of an S3 bucket; endpoint, region and credentials come from the usual AWS variables."""

    def __init__(self, uri: str) -> None:
        """`uri` is ``s3://bucket`` or ``s3://bucket/prefix``."""
        self.root = uri.removeprefix("s3://").rstrip("/")  # not a URL: "?", "#" and "%" are letters of a key
        if not self.root.partition("/")[0]:
            raise LakeError(f"{uri!r} names no bucket; write s3://BUCKET/PREFIX")
        self.uri = f"s3://{self.root}"

    @property
    def filesystem(self) -> Any:
        """See :attr:`Store.filesystem`."""
        return self._files

    @property
    def _files(self) -> Any:
        variables = frozenset((key, value) for key, value in os.environ.items() if key.startswith("AWS_"))
        return _s3_client(variables, os.getpid())

    def _path(self, path: str) -> str:
        if not stays_inside(path):
            raise LakeError(f"{path!r} is not a path inside the store {self.uri}")
        return f"{self.root}/{path}"

    def walk(self, prefix: str = "", *, everything: bool = False) -> Iterator[Entry]:
        """See :meth:`Store.walk`. Folder markers (zero bytes, name ends in ``/``) are left out.

        What one answer of the server does not hold is listed folder by folder, several at a time.
        """
        with ThreadPoolExecutor(LISTED_AT_A_TIME) as pool:
            yield from self._below(f"{prefix}/".lstrip("/"), pool)

    def _below(self, folder: str, pool: ThreadPoolExecutor) -> Iterator[Entry]:
        pages = self._pages(folder)
        first = next(pages)
        if not first.more:
            yield from sorted(first.entries, key=_path)  # not every server lists in order
            return
        level = [*self._pages(folder, delimiter="/")]
        files = {entry.path: entry for page in level for entry in page.entries}
        folders = sorted({below for page in level for below in page.folders})
        few = len(folders) < LISTED_AT_A_TIME  # whose own folders are listed side by side instead
        inside = (self._below(each, pool) for each in folders) if few else _ahead(pool, self._all, folders)
        for name in sorted([*files, *folders]):
            if name in files:
                yield files[name]
            else:
                yield from next(inside)

    def _all(self, folder: str) -> list[Entry]:
        return sorted((entry for page in self._pages(folder) for entry in page.entries), key=_path)

    def beside(self, start: str) -> Iterator[Entry]:
        """Objects whose path begins with `start` and goes on without another ``/``."""
        for page in self._pages(start, delimiter="/"):
            yield from page.entries

    def _pages(self, start: str, **how: str) -> Iterator[_Page]:
        """What the server tells of the objects whose path begins with `start`, one request (LIST) for each page."""
        bucket, _, root = self.root.partition("/")
        above = f"{root}/" if root else ""
        more = {"Bucket": bucket, "Prefix": f"{above}{start}", **{name.title(): value for name, value in how.items()}}
        while more:
            answer: dict[str, Any] = {}
            with contextlib.suppress(FileNotFoundError), _s3_errors(self.uri):
                answer = self._files.call_s3("list_objects_v2", **more)
            page = _Page.of(answer, len(above))
            yield page
            more = {**more, "ContinuationToken": page.more} if page.more else {}

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


@dataclass(frozen=True)
class _Page:
    """One answer: the objects, the folders (which end in ``/``), and the token for the next answer."""

    entries: list[Entry]
    folders: list[str]
    more: str | None

    @classmethod
    def of(cls, answer: dict[str, Any], above: int) -> _Page:
        """`above` is the length of the part of all names that is the store's."""
        entries = [
            Entry(info["Key"][above:], info["Size"], info.get("ETag", "").strip('"'), info["LastModified"].timestamp())
            for info in answer.get("Contents", ())
            if not info["Key"].endswith("/")
        ]
        folders = [each["Prefix"][above:] for each in answer.get("CommonPrefixes", ())]
        return cls(entries, folders, answer.get("NextContinuationToken"))


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], things: Iterable[T]) -> Iterator[R]:
    """`work` done on `things`, in their order, a few of them ahead of who takes the results."""
    waiting: deque[Future[R]] = deque()
    for thing in things:
        waiting.append(pool.submit(work, thing))
        if len(waiting) > 2 * LISTED_AT_A_TIME:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
