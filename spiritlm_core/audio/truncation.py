"""Finding out from a file's own headers whether its end is missing.

Decoders are forgiving: most play what is there and say nothing. A corpus must not take half a sentence for a
whole one, so what the container promises is compared with what the file holds; files made of chunks are looked
at in `chunks`.
"""

import os
import re
from collections.abc import Callable
from typing import BinaryIO

_OGG_TAIL = 2 * 65_307  # two pages of the greatest size
_MP3_HEAD = 4096
_HEAD = 256
_MOST_BOXES = 100_000
_BOX = re.compile(rb"[ -~\xa9]{4}")
_END_OF_STREAM = 4
_PACKET = 188  # bytes of MPEG-TS
_PIECE = 1 << 20

HEADER_TELLS_LENGTH = frozenset({"flac", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere", "tta", "wv"})
"""libav formats whose stream duration is what the header says, not an estimate from the file's size."""


def missing_end(file: BinaryIO) -> str | None:
    """Why `file` is cut short, as far as its container tells, or null. Leaves the position at the start."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    head = file.read(_HEAD)
    if head[:4] == b"OggS":
        reason = _ogg(file, size)
    elif head[4:8] == b"ftyp":
        reason = _mp4(file, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        reason = _cut(_matroska_size(head), size)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        reason = _cut(8 + int.from_bytes(head[4:8], "little"), size)
    elif head[:1] == head[_PACKET : _PACKET + 1] == b"G":
        reason = "truncated: its last packet is incomplete" if size % _PACKET else None
    elif start := next((start for start in _ONCE if head.startswith(start)), None):
        reason = _joined(file, start) or _cut(_ONCE[start](file, size), size)
    else:
        reason = _mp3(file, size, _id3_size(head))
    file.seek(0)
    return reason


def _joined(file: BinaryIO, start: bytes) -> str | None:
    """Whether a file begins again on the way, where decoders stop without a word."""
    file.seek(len(start))
    before = b""
    while piece := file.read(_PIECE):
        if start in before + piece:
            return "several files joined into one: split it"
        before = piece[-len(start) :]
    return None


def _voc_size(file: BinaryIO, size: int) -> int:
    """Bytes that the blocks of a Creative Voice file take, up to the one that ends it or the file."""
    file.seek(20)
    at = int.from_bytes(file.read(2), "little")
    while at < size:
        file.seek(at)
        block = file.read(4)
        at += 1 if block[:1] == b"\0" else 4 + int.from_bytes(block[1:], "little")
        if block[:1] == b"\0":
            break
    return at


def _flv_size(file: BinaryIO, size: int) -> int:
    """Bytes that the tags of a Flash video take."""
    at = 9
    while at + 4 < size:
        file.seek(at + 5)
        at += 15 + int.from_bytes(file.read(3), "big")
    return at + 4


def _asf_size(file: BinaryIO, size: int) -> int:
    """Bytes that the file properties of an ASF (WMA) file tell, 0 where they are not known."""
    del size
    file.seek(0)
    head = file.read(_MP3_HEAD)
    at = head.find(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\0\xc0\x0c\x20\x53\x65")
    return int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0


_ONCE: dict[bytes, Callable[[BinaryIO, int], int]] = {
    b"Creative Voice File\x1a": _voc_size,
    b"FLV\x01\x05\0\0\0\x09": _flv_size,
    b"FLV\x01\x04\0\0\0\x09": _flv_size,
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c": _asf_size,
    b"TTA1\x01\0\x01\0": lambda *_: 0,
    b"TTA1\x01\0\x02\0": lambda *_: 0,
    b"nut/multimedia container\0": lambda *_: 0,
}
"""How files begin that are one from there to their end, and the bytes that they promise."""


def _cut(promised: int, there: int) -> str | None:
    unknown = promised >= 1 << 31 > there
    short = there < promised and not unknown
    return f"truncated: its header promises {promised} bytes, it has {there}" if short else None


def _mp4(file: BinaryIO, size: int) -> str | None:
    """Walk the boxes of an MP4 (ISO/IEC 14496-12); of two descriptions of its sound decoders see one."""
    at, described, last = 0, 0, b""
    for _ in range(_MOST_BOXES):
        if at >= size:  # and perhaps beyond what a file can be
            break
        file.seek(at)
        box = file.read(16)
        length = int.from_bytes(box[8:16] if box[:4] == b"\0\0\0\1" else box[:4], "big")
        if length < 8 or not _BOX.match(box[4:8]):
            break
        last, at = box[4:8], at + length
        described += last == b"moov"
    if described > 1:
        return "several MP4 files joined into one: split it"
    return _cut(at, size) if last in (b"moov", b"moof", b"mdat") else None


def _matroska_size(head: bytes) -> int:
    """Bytes of a Matroska or WebM file (RFC 8794), 0 where its header does not tell."""
    length, width = _ebml_number(head[4:])
    at = 4 + width + length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, width = _ebml_number(head[at + 4 :])
    return 0 if length == (1 << 7 * width) - 1 else at + 4 + width + length


def _ebml_number(data: bytes) -> tuple[int, int]:
    """A number of one to eight bytes, whose width is the number of its leading zero bits, and that width."""
    width = 9 - data[0].bit_length() if data and data[0] else 1
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width


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
    return _cut(int.from_bytes(tag[12:16], "big"), size - at)
