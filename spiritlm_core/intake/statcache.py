"""Which content a file had when it was last read, so that an unchanged file is not read again.

Like git's index: size and version (modification time, change time and inode; the ETag on S3) stand for the
content, and a file changed within the clock's grain of the moment it was read is not remembered, because a
second change in that moment would go unnoticed.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import reduce
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.errors import LakeError, is_machine_error
from spiritlm_core.intake.files import File, is_web
from spiritlm_core.intake.opening import open_uri
from spiritlm_core.intake.speak.utterance import SCHEME, parse_utterance
from spiritlm_core.intake.web import ask_web
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.shard import check_shard, encode_parquet, read_rows

RACY_SECONDS = 2.0
"""Coarsest time stamp of the usual file systems (FAT, some network mounts)."""
FILES = pa.schema([("file", pa.uint64()), ("size", pa.int64()), ("version", pa.string()), ("content", pa.string())])
"""`file` is a digest of a URI, by which rows are sorted; `content` a sha256, or a JSON of more than one."""


class StatCache:
    """Remembers ``(uri, size, version) -> content``; safe to use from several threads.

    URIs are kept as digests: a cache would else be a list of all names that were ever there. The 64 bits of one would
    do harm only where two files that share them had the same size and version, too.
    """

    def __init__(self, known: pa.Table | None = None) -> None:
        """Start from rows of `FILES`, sorted."""
        self._known = FILES.empty_table() if known is None else known.combine_chunks()
        self._files = self._known["file"].to_numpy()
        self._put: dict[int, tuple[int, str, str] | None] = {}  # since then; null: forgotten
        self._lock = threading.Lock()

    @classmethod
    def from_bytes(cls, data: bytes) -> StatCache:
        """Read what `to_bytes` wrote; anything unreadable is an empty cache, it only costs time."""
        try:
            check_shard(data, "cache")
            return cls(read_rows(pa.BufferReader(data), "cache").select(FILES.names).cast(FILES))
        except (LakeError, pa.ArrowException, KeyError):
            return cls()

    def to_bytes(self) -> bytes:
        """One small file; equal caches give equal bytes."""
        return encode_parquet(self.files, b"{}")

    @property
    def files(self) -> pa.Table:
        """All that is known, as rows of `FILES`."""
        put = [(number, *about) for number, about in self._put.items() if about]
        new = pa.table([*zip(*put, strict=True)], FILES) if put else FILES.empty_table()
        is_new = pc.is_in(self._known["file"], value_set=pa.array(self._put, pa.uint64()))
        return pa.concat_tables([self._known.filter(pc.invert(is_new)), new]).sort_by("file")

    @property
    def is_changed(self) -> bool:
        """Whether it knows anything else than what it started from."""
        put = pa.array(self._put, pa.uint64())
        return any(self._put.values()) or bool(pc.any(pc.is_in(self._known["file"], value_set=put)).as_py())

    def get(self, file: File) -> str | None:
        """Content of an unchanged file, or null."""
        return self.lookup([file])[0]

    def lookup(self, files: Sequence[File]) -> list[str | None]:
        """Content of each file, null where it changed or is not known."""
        numbers = _numbers(files)
        found: list[str | None] = self._lookup(numbers, files) if len(self._files) else [None] * len(files)
        for place, number in enumerate(numbers.tolist() if self._put else ()):
            if number in self._put:
                size, version, content = self._put[number] or (-1, "", "")
                file = files[place]
                found[place] = content if (size, version) == (file.size, file.version) and version else None
        return found

    def _lookup(self, numbers: NDArray[np.uint64], files: Sequence[File]) -> list[str | None]:
        known = self._known.take(np.searchsorted(self._files, numbers).clip(max=len(self._files) - 1))
        versions = pa.array([file.version for file in files], pa.string())
        same = [pc.equal(known["file"], numbers), pc.equal(known["size"], pa.array([file.size for file in files]))]
        same += [pc.equal(known["version"], versions), pc.not_equal(versions, "")]
        content: list[str | None] = pc.if_else(reduce(pc.and_, same), known["content"], None).to_pylist()
        return content

    def put(self, file: File, content: str, read_at: float) -> None:
        """Remember `file`, unless it changed just before `read_at` (seconds since the epoch)."""
        (number,) = _numbers([file]).tolist()
        with self._lock:
            is_settled = bool(file.version) and file.modified < read_at - RACY_SECONDS
            self._put[number] = (file.size, file.version, content) if is_settled else None


def _numbers(files: Sequence[File]) -> NDArray[np.uint64]:
    digests = [hashlib.sha256(file.uri.encode("utf-8", "surrogatepass")).digest()[:8] for file in files]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


@contextmanager
def stat_cache(lake: Lake, path: str) -> Iterator[StatCache]:
    """The hashes of unchanged files, which the lake keeps at `path`; written back if they changed and it can be.

    A plan makes no lake: where nothing is, nothing is written.
    """
    try:
        cache = StatCache.from_bytes(lake.store.read(path))
    except FileNotFoundError:
        cache = StatCache()
    yield cache
    with suppress(LakeError, PermissionError):  # of others: `spiritlm plan` looks at theirs, too
        if cache.is_changed and next(lake.store.walk(), None) is not None:
            lake.store.write(path, cache.to_bytes())


def hide_names(lake: Lake) -> None:
    """Delete caches of older versions, which name files; the files are hashed anew where they are still there."""
    for kind in ("sources", "texts", "finetune"):
        for entry in lake.store.walk(f"cache/{kind}"):
            if entry.path.endswith(".json"):
                lake.store.delete(entry.path)


def hash_files(files: Iterable[File], cache: StatCache) -> dict[str, str | Exception]:
    """sha256 of every file by URI; what cannot be read maps to the error instead.

    Raises:
        Exception: a machine error (disk, network) while reading.
    """
    wanted = list({file.uri: file for file in files}.values())
    found: dict[str, Any] = dict(zip((file.uri for file in wanted), cache.lookup(wanted), strict=True))
    unread = [file for file in wanted if found[file.uri] is None]
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        found |= zip((file.uri for file in unread), pool.map(lambda file: _hash(file, cache), unread), strict=True)
    return found


def _hash(file: File, cache: StatCache) -> str | Exception:
    read_at = time.time()
    try:
        if is_web(file.uri):  # only its server knows the version, asked here because files are hashed side by side
            file = ask_web(file)
            if known := cache.get(file):
                return known
        sha256 = sha256_of(file.uri)
    except OSError as error:
        if is_machine_error(error):
            raise
        return error
    cache.put(file, sha256, read_at)
    return sha256


def sha256_of(uri: str) -> str:
    """sha256 (hex) of a file's bytes; of synthetic speech that of its address, which says all of it."""
    if uri.startswith(SCHEME):  # nobody has made it yet
        return parse_utterance(uri).digest
    with open_uri(uri) as file:
        return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
