"""Opening a file of any format as a libav container, and nothing but that file."""

from __future__ import annotations

from typing import Any, Protocol


class Seekable(Protocol):
    """What libav needs of a file; its name it must not know, it would look around there."""

    def read(self, count: int = -1, /) -> bytes:
        """Up to `count` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to `offset`."""

    def tell(self) -> int:
        """Where it is."""


def open_container(file: Seekable, kind: str | None = None) -> Any:
    """The file as a libav container. What a playlist in it names is not opened: neither files nor addresses.

    Args:
        file: without a `name`.
        kind: libav's name of the format, where the content does not tell.
    """
    import av

    return av.open(file, format=kind, metadata_errors="replace", options={"protocol_whitelist": "none"})
