"""Audio in any usual format to 16 kHz mono, and FLAC in and out of the lake.

Decoding goes through libav (PyAV) piece by piece, so a long recording costs its 16 kHz samples, in memory or on disk,
and no more.
"""

import io
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO

import numpy as np
import soundfile

from spiritlm_core.audio.config import LimitsConfig
from spiritlm_core.audio.decode import Pieces, decode_mono
from spiritlm_core.audio.resample import by_libav
from spiritlm_core.audio.samples import StoredSamples
from spiritlm_core.errors import Rejection
from spiritlm_core.lake.schema import SAMPLE_RATE

LIMITS = LimitsConfig()  # what a recording may be where no recipe says it
_MOST_IN_MEMORY = 64 * 2**20  # bytes, 35 minutes


def encode_flac(waveform: np.ndarray) -> bytes:
    """Encode float32[T] in [-1, 1] (or int16[T]) at 16 kHz as 16-bit mono FLAC."""
    return _encode(waveform, "FLAC")


def encode_wav(waveform: np.ndarray) -> bytes:
    """Encode float32[T] in [-1, 1] (or int16[T]) at 16 kHz as a 16-bit mono WAV file."""
    return _encode(waveform, "WAV")


def _encode(waveform: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(waveform), SAMPLE_RATE, format=kind, subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """Decode what `encode_flac` wrote: float32[T] in [-1, 1], 16 kHz."""
    samples: np.ndarray
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=False)
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise Rejection(f"audio of the lake must be {SAMPLE_RATE} Hz mono, not {rate} Hz with shape {samples.shape}")
    return samples


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round float samples to int16, full scale at 32768; int16 passes through."""
    if waveform.dtype == np.int16:
        return waveform
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)


def to_float32(waveform: np.ndarray) -> np.ndarray:
    """int16 samples as float32 in [-1, 1); float samples are that already."""
    return waveform.astype(np.float32) / np.float32(32768.0 if waveform.dtype == np.int16 else 1.0)


def read_mono(file: BinaryIO, name: str, channel: int | None = None, limits: LimitsConfig = LIMITS) -> np.ndarray:
    """A file as 16 kHz mono, int16[T]; arguments and errors as of :func:`spiritlm_core.audio.decode.decode_mono`."""
    return store_mono(file, name, channel, limits)[:]


def store_mono(file: BinaryIO, name: str, channel: int | None = None, limits: LimitsConfig = LIMITS) -> StoredSamples:
    """As `read_mono`, but a long recording is kept in a temporary file instead of memory."""
    samples: Any = SpooledTemporaryFile(_MOST_IN_MEMORY)  # noqa: SIM115 - it lives as long as the samples
    decode_mono(file, name, channel, limits, _resampled, samples)
    return StoredSamples(samples, 0, samples.tell() // 2)


def stored(waveform: np.ndarray) -> StoredSamples:
    """Samples that are in memory as those of a file are."""
    return StoredSamples(io.BytesIO(to_int16(waveform).tobytes()), 0, len(waveform))


def _resampled(pieces: Pieces) -> Iterator[np.ndarray]:
    return map(to_int16, by_libav(pieces))
