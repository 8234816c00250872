"""What a store is: a flat space of named byte strings, each whole or not there at all."""

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from spiritlm_core.files import TEMPORARY


@dataclass(frozen=True)
class Entry:
    """One object: its path in the store, its size in bytes, and a token that changes with its content.

    `modified` is the time of the last write by the store's own clock, in seconds since the epoch. `link` says that
    a symbolic link, or a pipe, is there, not the object itself.
    """

    path: str
    size: int
    version: str
    modified: float = 0.0
    link: bool = False

    @property
    def temporary(self) -> bool:
        """Whether this is no object yet, but what a writer has put down so far."""
        return any(part.startswith(TEMPORARY) for part in self.path.split("/"))


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

    def update(self, path: str, data: bytes) -> None:
        """Write or replace an object unless it holds these bytes already."""
        if not self.exists(path) or self.read(path) != data:
            self.write(path, data)

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
        return None

    @property
    def filesystem(self) -> Any:
        """The fsspec file system that opens the URIs of remote objects, for libraries that take one; None if local."""
        return None

    def child(self, path: str) -> str:
        """The full URI of an object."""
        return f"{self.uri.rstrip('/')}/{path}"
