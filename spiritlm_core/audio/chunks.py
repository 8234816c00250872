"""Where the samples lie in files made of chunks: WAV, RF64, Wave64, AIFF, 8SVX, CAF, and AU.

Decoders believe a header. But recorders that die or cannot seek leave a wrong length in it, and files get joined
end to end. So what a header promises is compared with the file, and all the sound is found, or its loss is told.
"""

import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from spiritlm_core.errors import Rejection

_UUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # ends the names of Wave64's chunks
_NAME = re.compile(rb"[ -~]{4}")
_METADATA = re.compile(
    rb"LIST|id3 |ID3 |bext|iXML|_PMX|cue |smpl|inst|fact|JUNK|PAD |PEAK|afsp|FLLR|APPL|ANNO|NAME|COMT"
)
TAG = re.compile(rb"ID3|TAG|APETAGEX")  # how what taggers put around and behind the sound begins
_HEAD = 64
_SLACK = 16  # bytes behind the samples that are less than a chunk or a millisecond
_MOST = 1000  # chunks, and files joined into one
_GIB = 1 << 30
_FARTHEST = 1 << 40  # bytes; file systems refuse to seek to what damaged numbers say


@dataclass(frozen=True)
class Layout:
    """How a kind of file is made of chunks."""

    name: str  # what it is called
    start: re.Pattern[bytes]  # pattern of its first bytes
    first: int  # place of its first chunk
    samples: bytes  # name of the chunk that holds the samples
    size: str  # of a chunk, in the notation of `struct`; it follows the chunk's name
    own: int = 0  # how much of a chunk's name and size that includes
    align: int = 2  # chunks begin at multiples of so many bytes

    @property
    def head(self) -> int:
        """Bytes of a chunk's name and size."""
        return len(self.samples) + struct.calcsize(self.size)

    def chunk(self, head: bytes) -> tuple[bytes, int]:
        """Name and length of the chunk that begins with `head`."""
        (size,) = struct.unpack_from(self.size, head.ljust(self.head, b"\0"), len(self.samples))
        return head[: len(self.samples)], max(0, size - self.own)


_LAYOUTS = (
    Layout("WAV", re.compile(rb"(RIFF|RF64|BW64)....WAVE", re.DOTALL), 12, b"data", "<I"),
    Layout("WAV", re.compile(rb"RIFX....WAVE", re.DOTALL), 12, b"data", ">I"),
    Layout("8SVX", re.compile(rb"FORM....(8SVX|16SV)", re.DOTALL), 12, b"BODY", ">I"),
    Layout("AIFF", re.compile(rb"FORM....AIF[FC]", re.DOTALL), 12, b"SSND", ">I"),
    Layout("CAF", re.compile(rb"caff\0\x01"), 8, b"data", ">Q", align=1),
    Layout("Wave64", re.compile(rb"riff\x2e\x91\xcf\x11"), 40, b"data" + _UUID, "<Q", own=24, align=8),
    Layout("AU", re.compile(rb"\.snd"), 24, b".snd", ">I", align=1),
)


class Part:
    """Bytes `start` to `end` of a file, as a file; `numbers` replace what is at their places in the file."""

    def __init__(self, file: BinaryIO, start: int, end: int, numbers: Mapping[int, bytes] | None = None) -> None:
        self._file, self._start, self.end, self._numbers = file, start, end, numbers or {}
        self._place = start

    def tell(self) -> int:
        """Bytes from its beginning."""
        return self._place - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to `offset`, as in any file."""
        self._place = max(self._start, offset + (self._start, self._place, self.end)[whence])
        return self.tell()

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes."""
        if self._place > _FARTHEST:
            raise Rejection("damaged: it points far beyond its end")
        self._file.seek(self._place)
        left = max(0, self.end - self._place)
        data = self._file.read(left if count < 0 else min(count, left))
        first, self._place = self._place, self._place + len(data)
        for at, number in self._numbers.items():
            low, high = max(first, at), min(self._place, at + len(number))
            if low < high:
                data = data[: low - first] + number[low - at : high - at] + data[high - first :]
        return data


def parts(file: BinaryIO) -> Iterator[Part]:
    """The files that `file` holds end to end, mostly one, each with a header that tells its true length.

    Raises Rejection: its end is missing, or there are too many of them.
    """
    size, at = file.seek(0, os.SEEK_END), 0
    for _ in range(_MOST):
        layout = _layout(_read(file, at, _HEAD))
        if layout is None:
            yield Part(file, at, size)
            return
        part = _part(file, layout, at, size)
        yield part
        if (at := part.end) >= size:
            return
    raise Rejection(f"more than {_MOST} files joined into one: split it")


def _layout(head: bytes) -> Layout | None:
    return next((layout for layout in _LAYOUTS if layout.start.match(head)), None)


def _part(file: BinaryIO, layout: Layout, at: int, size: int) -> Part:
    """The file that begins at `at`."""
    body, promised, place, form = _au(file, at) if layout.name == "AU" else _samples(file, layout, at, size)
    if (there := size - body) < 0:
        raise Rejection(f"truncated: {layout.name} without samples")
    if promised > there and not _is_placeholder(promised, there):
        raise Rejection(f"truncated: its header promises {promised} bytes of samples, it has {there}")
    after = body + promised
    starts = (after, _aligned(after, at, layout)) if after <= size else ()
    end = next((end for start in starts if (end := _end_of_chunks(file, layout, start, at, size))), None)
    if end is None:
        end, promised = size, there
    most = (1 << 8 * struct.calcsize(form)) - 1
    numbers = {place: struct.pack(form, min(promised + layout.own, most))}
    return Part(file, at, end, numbers | (_iff(file, layout, at, end) if layout.name in ("AIFF", "8SVX") else {}))


def _iff(file: BinaryIO, layout: Layout, at: int, end: int) -> dict[int, bytes]:
    """The length of the whole, and no number of frames where it is too great for libav."""
    whole = {at + 4: struct.pack(">I", min(end - at - 8, (1 << 31) - 1))}
    common = next((body for name, body, _ in islice(_chunks(file, layout, at, end), _MOST) if name == b"COMM"), None)
    return whole | ({common + 2: bytes(4)} if common and _read(file, common + 2, 1) >= b"\x80" else {})


def _au(file: BinaryIO, at: int) -> tuple[int, int, int, str]:
    """As `_samples`."""
    offset, promised = struct.unpack(">4xII", _read(file, at, 12).ljust(12, b"\0"))
    return at + offset, promised, at + 8, ">I"


def _samples(file: BinaryIO, layout: Layout, at: int, size: int) -> tuple[int, int, int, str]:
    """Place of the samples, their length in bytes, the place and the format of the number that tells it."""
    wide = None
    for name, body, length in islice(_chunks(file, layout, at, size), _MOST):
        if name == b"ds64":  # holds what does not fit into RF64's other numbers
            wide = struct.unpack("<8xQ", _read(file, body, 16).ljust(16, b"\0"))[0], body + 8, "<Q"
        if name == layout.samples:
            return body, *(wide or (length, body - struct.calcsize(layout.size), layout.size))
    raise Rejection(f"truncated: {layout.name} without samples")


def _chunks(file: BinaryIO, layout: Layout, at: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and length of each chunk of the file that begins at `at`."""
    place = at + layout.first
    while place + layout.head <= size:
        name, length = layout.chunk(_read(file, place, layout.head))
        yield name, place + layout.head, length
        place = _aligned(place + layout.head + length, at, layout)


def _end_of_chunks(file: BinaryIO, layout: Layout, place: int, at: int, size: int) -> int | None:
    """Where the chunks from `place` on end: at the file's end or at another file; null if these are no chunks."""
    for _ in range(_MOST):
        if _is_over(file, place, size):
            return size
        head = _read(file, place, _HEAD)
        if _layout(head):
            return place
        name, length = layout.chunk(head)
        if name == layout.samples and length:
            raise Rejection("it holds samples in two places: split it")
        place = _aligned(place + layout.head + length, at, layout)
        if not (_NAME.match(name) if place < size + layout.align else _METADATA.match(name)):
            return None
    return size


def _is_over(file: BinaryIO, place: int, size: int) -> bool:
    """Whether nothing comes from `place` on but the tag of a program that does not care for chunks, or zeros."""
    if size - place <= _SLACK:
        return True
    head = _read(file, place, _HEAD)
    return bool(TAG.match(head)) or not (head.strip(b"\0") or _holds_something(file, place))


def _aligned(place: int, at: int, layout: Layout) -> int:
    return place + (at - place) % layout.align


def _holds_something(file: BinaryIO, place: int) -> bool:
    """Whether anything but zeros comes from `place` on."""
    file.seek(place)
    return any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b""))


def _is_placeholder(promised: int, there: int) -> bool:
    """Whether a promise is no length but what a recorder that cannot seek has left in the header."""
    near_full = any(abs(promised - full) <= 1 << 20 for full in (2 * _GIB, 4 * _GIB)) or promised >= 1 << 48
    return near_full or (promised >= _GIB and there < promised // 16)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
