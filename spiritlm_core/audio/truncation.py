"""Finding out from a file's own headers whether its end is missing.

Decoders are forgiving: most play what is there and say nothing. A corpus must not take half a sentence for a
whole one, so what the container promises is compared with what the file holds; files made of chunks are looked
at in `chunks`.
"""

from __future__ import annotations

import os
from typing import BinaryIO

_OGG_TAIL = 2 * 65_307  # two pages of the greatest size
_MP3_HEAD = 4096
_END_OF_STREAM = 4

HEADER_TELLS_LENGTH = frozenset({"flac", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere", "tta", "wv"})
"""libav formats whose stream duration is what the header says, not an estimate from the file's size."""


def missing_end(file: BinaryIO) -> str | None:
    """Why `file` is cut short, as far as its container tells, or null. Leaves the position at the start."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    head = file.read(10)
    reason = _ogg(file, size) if head[:4] == b"OggS" else _mp3(file, size, _id3_size(head))
    file.seek(0)
    return reason


def _ogg(file: BinaryIO, size: int) -> str | None:
    """The last page of an Ogg stream (RFC 3533) must be whole and carry the end-of-stream flag."""
    file.seek(max(0, size - _OGG_TAIL))
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:]
    if at < 0 or len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return "truncated: its last Ogg page is incomplete"
    return None if page[5] & _END_OF_STREAM else "truncated: its last Ogg page does not end the stream"


def _id3_size(head: bytes) -> int:
    """Bytes of an ID3v2 tag in front of an MP3 (four times seven bits)."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _mp3(file: BinaryIO, size: int, at: int) -> str | None:
    """Compare the byte count in the Xing/Info tag of the first frame with the file; without a tag nobody knows."""
    file.seek(at)
    frame = file.read(_MP3_HEAD)
    if frame[:1] != b"\xff":
        return None
    tag = next((frame[i : i + 16] for i in (13, 21, 36) if frame[i : i + 4] in (b"Xing", b"Info")), b"")
    if len(tag) < 16 or tag[7] & 3 != 3:  # both the frame count and the byte count are there
        return None
    promised = int.from_bytes(tag[12:16], "big")
    there = size - at
    return f"truncated: its header promises {promised} bytes, it has {there}" if there < promised else None
