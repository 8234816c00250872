"""Opening a file of any format as a libav container, and nothing but that file."""

from __future__ import annotations

from typing import Any, BinaryIO


def open_container(file: BinaryIO, name: str = "") -> Any:
    """The file as a libav container. What a playlist in it names is not opened: neither files nor addresses."""
    import av

    kind = "g722" if name.lower().endswith(".g722") else None
    return av.open(file, format=kind, metadata_errors="replace", options={"protocol_whitelist": "none"})
