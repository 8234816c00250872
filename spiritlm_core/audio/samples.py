"""The samples of a recording, of which a day does not fit into the memory of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]  # float32[samples] in [-1, 1], one channel at 16 kHz

_BLOCK = 1 << 20


class StoredSamples:
    """int16[T] in a file, samples `first` to `last` (exclusive), of which parts are read when they are asked for."""

    def __init__(self, file: BinaryIO, first: int, last: int) -> None:
        self._file, self._first, self._last = file, first, max(first, last)

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, part: slice) -> np.ndarray:
        """int16[n] of a part, read from the file."""
        first, last, _ = part.indices(len(self))
        self._file.seek(2 * (self._first + first))
        return np.frombuffer(self._file.read(2 * max(0, last - first)), np.int16)

    def between(self, first: int, last: int) -> StoredSamples:
        """A part that stays in the file."""
        first, last, _ = slice(first, last).indices(len(self))
        return StoredSamples(self._file, self._first + first, self._first + last)


Samples = StoredSamples | np.ndarray  # int16[T]


def blocks(samples: Samples) -> Iterator[np.ndarray]:
    """int16[n] after int16[n] of all samples, for what would take much memory at once."""
    return (samples[first : first + _BLOCK] for first in range(0, len(samples), _BLOCK))
