r"""Finding the files of a source, by URI.

There are ``file://`` (percent-encoded), ``s3://``, ``http(s)://``, ``prompts://``, and ``parquet+URI#COLUMN/ROW`` for
a recording in a row of a Parquet file.

File names are bytes, not text: a name that is not UTF-8 is carried with surrogate escapes inside the process,
percent-encoded in its URI, and shown with ``\xNN`` escapes.
"""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from spiritlm_core.errors import SourceError, is_machine_error
from spiritlm_core.store.s3 import LISTED_AT_A_TIME, S3Store

UNLISTED = (
    "a web address cannot be listed: give a manifest there (.jsonl, .csv …), or a local one whose paths are web "
    "addresses; download and unpack an archive, and give its folder"
)
"""Why what lies on the web is no folder."""
PACKED = (".gz", ".bz2", ".zst")  # endings of names of compressed files


@dataclass(frozen=True)
class File:
    """A file below a source's root; `error` says why it must not or cannot be read."""

    path: str  # relative to the root, "/"-joined, may hold surrogate escapes
    uri: str
    size: int = 0
    version: str = ""  # changes when the content may have changed
    modified: float = 0.0  # seconds since the epoch, 0 where unknown
    error: str | None = None
    is_folder: bool = False  # a folder that must not or cannot be entered
    sha256: str | None = None  # of its content (hex), where that is known without reading it

    @property
    def suffix(self) -> str:
        """Lower-case extension, with the dot."""
        return posixpath.splitext(self.path)[1].lower()

    @property
    def stem(self) -> str:
        """Path without the extension."""
        return posixpath.splitext(self.path)[0]

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Path of the folder, "" at the root."""
        return self.path.rpartition("/")[0]


def printable(path: str) -> str:
    r"""`path` as text that any encoder takes: bytes that are not UTF-8 become ``\xNN``."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, out of JSON
        return path.encode("utf-8", "backslashreplace").decode()


def local_uri(path: str | Path) -> str:
    """The ``file://`` URI of a local path."""
    full = os.path.abspath(path)  # noqa: PTH100 - links stay as the user named them
    return "file://" + quote_from_bytes(os.fsencode(full), safe="/!$&'()*+,;=:@~")


def local_path(uri: str) -> str:
    """The path of a ``file://`` URI, or of what already is a path."""
    return os.fsdecode(unquote_to_bytes(uri[7:])) if uri.startswith("file://") else uri


def is_web(uri: str) -> bool:
    """Whether a URI is a web address."""
    return uri.startswith(("http://", "https://"))


def list_tree(root: str, *, follow_symlinks: bool = False) -> list[File]:
    """Every file below `root` (a folder or ``s3://bucket/prefix``), sorted by path.

    Args:
        root: local path, ``file://`` or ``s3://`` URI.
        follow_symlinks: whether links that leave the tree are read rather than refused.

    Raises:
        SourceError: there is no such folder, or nothing in it.
    """
    if is_web(root):
        raise SourceError(f"source {root!r}: {UNLISTED}")
    files = _list_s3(root) if root.startswith("s3://") else _list_local(Path(local_path(root)), follow_symlinks)
    if not files:
        raise SourceError(f"source {root}: there are no files in it")
    return sorted(files, key=lambda file: os.fsencode(file.path))


def stat_file(uri: str) -> File:
    """One file that a manifest names; a missing one comes back with its `error` set."""
    if uri.startswith("s3://"):
        return stat_files([uri])[0]
    if is_web(uri):
        return File(uri, uri)  # asked for when its content is: a list may name thousands
    if "://" in uri and not uri.startswith("file://"):
        return File(uri, uri, error=f"{uri.partition('://')[0]}:// cannot be read: file://, s3:// and https:// can")
    try:
        path = _as_spelt(Path(local_path(uri)))
        return _regular(path.name, path)
    except ValueError:  # a NUL, or half a surrogate pair
        return File(uri, uri, error="no file can be called so")


def stat_files(uris: Sequence[str]) -> list[File]:
    """See :func:`stat_file`; what lies in one folder of a bucket takes one listing, of what is called like them all."""
    wanted: dict[str, set[str]] = {}
    for uri in uris:
        if uri.startswith("s3://"):
            wanted.setdefault(uri.rpartition("/")[0], set()).add(uri)
    there: dict[str, File] = {}
    with ThreadPoolExecutor(LISTED_AT_A_TIME) as pool:
        for files in pool.map(_listed, wanted.values()):
            there |= files
    return [there[uri] if uri.startswith("s3://") else stat_file(uri) for uri in uris]


def _listed(uris: Iterable[str]) -> dict[str, File]:
    """Files of one folder of a bucket."""
    keys = {uri: bucket_of(uri)[1] for uri in uris}
    store = bucket_of(next(iter(keys)))[0]
    found = {entry.path: entry for entry in store.beside(posixpath.commonprefix([*keys.values()]))}
    entries = {uri: (key, found.get(key)) for uri, key in keys.items()}
    return {
        uri: File(key, uri, entry.size, entry.version) if entry else File(key, uri, error="file not found")
        for uri, (key, entry) in entries.items()
    }


def composed(name: str) -> str:
    """`name` with each accented letter as one character (NFC): file systems keep either spelling."""
    return unicodedata.normalize("NFC", name)


def _as_spelt(path: Path) -> Path:
    """`path` with accents as the folders spell them, where it is not there as it stands."""
    if str(path).isascii() or os.path.lexists(path) or path == path.parent:
        return path
    parent = _as_spelt(path.parent)
    try:
        return parent / _spellings(parent, parent.stat().st_mtime_ns).get(composed(path.name), path.name)
    except OSError:
        return path


@lru_cache(maxsize=64)
def _spellings(folder: Path, changed: int) -> dict[str, str]:
    """Composed name to name of all that is in `folder`."""
    del changed  # only makes a changed folder be listed again
    return {composed(name): name for name in os.listdir(folder)}  # noqa: PTH208 - names alone


@lru_cache(maxsize=16)
def _store(bucket: str) -> S3Store:
    return S3Store(bucket)  # kept, because connecting takes longer than reading a clip


def bucket_of(uri: str) -> tuple[S3Store, str]:
    """The store of an ``s3://`` URI's bucket, and the key in it."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return _store(f"s3://{bucket}"), key


def _list_s3(root: str) -> list[File]:
    store, prefix = bucket_of(root.rstrip("/"))
    below = f"{prefix}/" if prefix else ""
    entries = (entry for entry in store.walk(prefix) if entry.path.startswith(below))
    return [File(entry.path[len(below) :], store.child(entry.path), entry.size, entry.version) for entry in entries]


def _list_local(root: Path, follow: bool) -> list[File]:
    if not root.is_dir():
        what = "it is a file, not a folder" if root.exists() else "there is no such folder"
        raise SourceError(f"source {root}: {what}; --source PATH names another than the recipe's")
    return list(_walk(root, "", root.resolve(), follow, frozenset()))


def _walk(folder: Path, below: str, root: Path, follow: bool, above: frozenset[Path]) -> Iterator[File]:
    """Files of `folder`, which lies `below` the root; `above` are the real folders on the way, to stop at loops."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        if is_machine_error(error):
            raise
        yield _refused(below, folder, f"folder cannot be listed: {error.strerror}", is_folder=True)
        return
    above |= {folder.resolve()}
    for entry in entries:
        full, path = Path(entry.path), f"{below}/{entry.name}".lstrip("/")
        problem = _link_problem(full, root, follow) if entry.is_symlink() else None
        if problem:
            yield _refused(path, full, problem, is_folder=full.is_dir())
        elif not entry.is_dir():
            yield _regular(path, full)
        # a linked folder inside the tree is listed at its own place, so only followed ones are entered
        elif not entry.is_symlink() or (follow and full.resolve() not in above):
            yield from _walk(full, path, root, follow, above)


def _link_problem(link: Path, root: Path, follow: bool) -> str | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return f"broken symlink to {printable(str(link.readlink()))}"
    if not follow and not target.is_relative_to(root):
        return f"symlink leaves the source folder, to {printable(str(target))} (follow_symlinks would allow it)"
    return None


def _regular(path: str, full: Path) -> File:
    try:
        status = full.stat()
    except FileNotFoundError:
        return _refused(path, full, "file not found")
    except OSError as error:
        if is_machine_error(error):
            raise
        return _refused(path, full, f"cannot be read: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):
        return _refused(path, full, "not a regular file")
    # the inode and the change time catch a replacement whose modification time was set back
    version = f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
    newest = max(status.st_mtime, status.st_ctime)
    return File(path, local_uri(full), status.st_size, version, newest)


def _refused(path: str, full: Path, error: str, *, is_folder: bool = False) -> File:
    return File(path, local_uri(full), error=error, is_folder=is_folder)
