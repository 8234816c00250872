"""Which content a file had when it was last read, so that an unchanged file is not read again.

Like git's index: size and version (modification time, change time and inode; the ETag on S3) stand for the
content, and a file changed within the clock's grain of the moment it was read is not remembered, because a
second change in that moment would go unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from spiritlm_core.errors import LakeError, is_machine_error
from spiritlm_core.intake.files import File, is_web
from spiritlm_core.intake.opening import open_uri
from spiritlm_core.intake.speak.utterance import SCHEME, parse_utterance
from spiritlm_core.intake.web import ask_web
from spiritlm_core.lake.lake import Lake

RACY_SECONDS = 2.0
"""Coarsest time stamp of the usual file systems (FAT, some network mounts)."""
_FORMAT = 2  # 1: URIs in place of their digests
_CHUNK = 2**20


class StatCache:
    """Remembers ``(uri, size, version) -> sha256``; safe to use from several threads.

    URIs are kept as digests: a cache would else be a list of all names that were ever there.
    """

    def __init__(self, entries: dict[str, tuple[int, str, str]] | None = None) -> None:
        """Start from `entries`: digest of the URI to (size, version, sha256)."""
        self._entries = dict(entries or {})
        self._lock = threading.Lock()

    @classmethod
    def from_bytes(cls, data: bytes | None) -> StatCache:
        """Read what `to_bytes` wrote; anything unreadable is an empty cache, it only costs time."""
        try:
            saved = json.loads(zlib.decompress(data or b""))
            named = _digest if saved["format"] == 1 else str
            entries = {named(name): (size, version, sha) for name, (size, version, sha) in saved["files"].items()}
            return cls(entries) if saved["format"] <= _FORMAT else cls()
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()

    def to_bytes(self) -> bytes:
        """One small file; equal caches give equal bytes."""
        saved = {"format": _FORMAT, "files": self._entries}
        return zlib.compress(json.dumps(saved, sort_keys=True).encode(), 6)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, file: File) -> str | None:
        """sha256 of an unchanged file, or null."""
        size, version, sha256 = self._entries.get(_digest(file.uri), (-1, "", ""))
        return sha256 if (size, version) == (file.size, file.version) and version else None

    def put(self, file: File, sha256: str, read_at: float) -> None:
        """Remember `file`, unless it changed just before `read_at` (seconds since the epoch)."""
        with self._lock:
            if file.version and file.modified < read_at - RACY_SECONDS:
                self._entries[_digest(file.uri)] = (file.size, file.version, sha256)
            else:
                self._entries.pop(_digest(file.uri), None)


def _digest(uri: str) -> str:
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@contextmanager
def stat_cache(lake: Lake, path: str) -> Iterator[StatCache]:
    """The hashes of unchanged files, which the lake keeps at `path`; written back if they changed and it can be.

    A plan makes no lake: where nothing is, nothing is written.
    """
    try:
        known = lake.store.read(path)
    except FileNotFoundError:
        known = b""
    cache = StatCache.from_bytes(known)
    yield cache
    with suppress(LakeError, PermissionError):  # of others: `spiritlm plan` looks at theirs, too
        if (now := cache.to_bytes()) != known and next(lake.store.walk(), None) is not None:
            lake.store.write(path, now)


def hide_names(lake: Lake) -> None:
    """Write caches of older versions, which name files, as they are written now."""
    for kind in ("sources", "texts", "finetune"):
        for entry in lake.store.walk(f"cache/{kind}"):
            known = lake.store.read(entry.path)
            if (now := StatCache.from_bytes(known).to_bytes()) != known:
                lake.store.write(entry.path, now)


def hash_files(files: Iterable[File], cache: StatCache) -> dict[str, str | Exception]:
    """sha256 of every file by URI; what cannot be read maps to the error instead.

    Raises:
        Exception: a machine error (disk, network) while reading.
    """
    wanted = {file.uri: file for file in files}
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        return dict(zip(wanted, pool.map(lambda file: _hash(file, cache), wanted.values()), strict=True))


def _hash(file: File, cache: StatCache) -> str | Exception:
    read_at = time.time()
    try:
        file = _asked(file)
        if known := cache.get(file):
            return known
        sha256 = sha256_of(file.uri)
    except OSError as error:
        if is_machine_error(error):
            raise
        return error
    cache.put(file, sha256, read_at)
    return sha256


def _asked(file: File) -> File:
    """`file` with the version that only its server knows, asked here because files are hashed side by side."""
    return ask_web(file) if is_web(file.uri) else file


def sha256_of(uri: str) -> str:
    """sha256 (hex) of a file's bytes, read in pieces; of synthetic speech that of its address, which says all of it."""
    if uri.startswith(SCHEME):  # nobody has made it yet
        return parse_utterance(uri).digest
    total = hashlib.sha256()
    with open_uri(uri) as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()
