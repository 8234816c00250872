"""Writing waveforms as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from spiritlm_core.errors import SpiritLMError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONGEST = 0xFFFFFFFF - 36
"""Bytes of samples that the header of a WAV file can promise."""


def write_wav(path: Path, waveform: NDArray[np.float32]) -> Path:
    """Write float32[samples] in [-1, 1] at 16 kHz as 16-bit PCM, with the folder it is to lie in.

    Raises:
        SpiritLMError: the file cannot be written.
    """
    from spiritlm_core.audio.codec import encode_wav

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_wav(waveform))
    except OSError as error:
        raise SpiritLMError(f"{path} cannot be written: {error}") from error
    return path


class WavStream:
    """Writes 16-bit mono PCM at 16 kHz to an open file as it comes; a context manager.

    Nobody knows how long it will be when the header is written: into a pipe goes one that promises the longest there
    can be, as other programs do, and players begin at once. A file on a disk is written at the end, with its length.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._waits = file, file.seekable()
        self._kept: list[bytes] = []
        self.begun = False

    def __enter__(self) -> Self:
        """Nothing is written before the first samples are."""
        return self

    def write(self, waveform: NDArray[np.float32]) -> None:
        """Write float32[samples] in [-1, 1]."""
        from spiritlm_core.audio.codec import to_int16

        data = to_int16(waveform).astype("<i2").tobytes()
        if self._waits:
            self._kept.append(data)
        else:
            self._file.write(data if self.begun else _header(_LONGEST) + data)
            self._file.flush()
        self.begun = True

    def __exit__(self, kind: object, *_: object) -> None:
        """Write what was kept, unless something went wrong."""
        if self._kept and kind is None:
            data = b"".join(self._kept)
            self._file.write(_header(len(data)) + data)
            self._file.flush()


def _header(size: int) -> bytes:
    """Of a WAV file with `size` bytes of samples: that of an empty one, with the two lengths in it replaced."""
    import numpy as np

    from spiritlm_core.audio.codec import encode_wav

    empty = encode_wav(np.zeros(0, np.float32))
    return empty[:4] + (36 + size).to_bytes(4, "little") + empty[8:40] + size.to_bytes(4, "little")
