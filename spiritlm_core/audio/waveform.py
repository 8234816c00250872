"""Speech in whatever form a caller has it, to one 16 kHz mono waveform."""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiritlm_core.audio.config import AudioConfig, LimitsConfig
from spiritlm_core.audio.decode import Downmix, check_format, decode_mono
from spiritlm_core.audio.resample import by_torchaudio
from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE

Audio = str | os.PathLike[str] | bytes | ArrayLike
"""A path, the bytes of a file, or samples: float[T] or float[channels, T] as an array or tensor."""

LIMITS = LimitsConfig(max_channels=2)  # what a file or samples may be; a recipe may allow more channels


def as_waveform(audio: Audio, sample_rate: int | None = None, channel: int | None = None) -> NDArray[np.float32]:
    """Mono samples at 16 kHz, float32[T].

    Resampling is that of `torchaudio.functional.resample` with its default filter, as in the released Spirit LM.

    Args:
        audio: A path, the bytes of a file in any usual format, or samples in [-1, 1].
        sample_rate: Of samples, in hertz; 16 000 if not given. A file says its own.
        channel: Which of two channels to take; if not given both are averaged, or the louder one is taken where they
            cancel each other.

    Raises SpiritLMError: it cannot be read, is not float[T] or float[channels, T], is beyond `LIMITS`, has no such
    channel, or holds values that are not finite.
    """
    if isinstance(audio, str | os.PathLike | bytes):
        if sample_rate is not None:
            raise SpiritLMError("sample_rate is for samples: a file says its own sampling rate")
        return _read(audio, channel)
    try:
        return _resampled(_array(audio), SAMPLE_RATE if sample_rate is None else sample_rate, channel)
    except Rejection as error:
        raise SpiritLMError(f"the waveform: {error}") from error


def _read(audio: str | os.PathLike[str] | bytes, channel: int | None) -> NDArray[np.float32]:
    name = "the audio" if isinstance(audio, bytes) else os.fspath(audio)
    try:
        with io.BytesIO(audio) if isinstance(audio, bytes) else Path(audio).open("rb") as file:
            return read_waveform(file, name, channel)
    except Rejection as error:
        raise SpiritLMError(f"{name}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise SpiritLMError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def is_silent(waveform: NDArray[np.float32]) -> bool:
    """Whether float32[T] in [-1, 1] never gets as loud as what is taken into a corpus must."""
    swing = np.abs(waveform - waveform.mean()).max() if len(waveform) else 0.0
    return bool(swing < 10 ** (AudioConfig().min_peak_dbfs / 20))


def read_waveform(
    file: BinaryIO, name: str, channel: int | None = None, limits: LimitsConfig = LIMITS
) -> NDArray[np.float32]:
    """As :func:`as_waveform`, of an open file.

    Raises TooLong: longer than allowed; Rejection: it is no audio, damaged, cut short, or beyond the limits.
    """
    samples = io.BytesIO()
    decode_mono(file, name, channel, limits, by_torchaudio, samples)
    return np.frombuffer(samples.getbuffer(), np.float32)


def _array(audio: Any) -> NDArray[np.float32]:
    """float32[channels, T]; tensors may be on a GPU, of any float type, and part of a graph."""
    if hasattr(audio, "detach"):
        audio = audio.detach().cpu()
        audio = audio.float() if audio.is_floating_point() else audio
    samples = np.asarray(audio)
    if not np.issubdtype(samples.dtype, np.floating) or samples.ndim not in (1, 2):
        raise SpiritLMError(f"a waveform is float[T] or float[channels, T], not {samples.dtype}{list(samples.shape)}")
    return np.atleast_2d(samples.astype(np.float32))


def _resampled(samples: NDArray[np.float32], rate: int, channel: int | None) -> NDArray[np.float32]:
    check_format(rate, len(samples), LIMITS)
    mix = Downmix(channel)
    mono = mix.mono(samples)
    mono = np.ascontiguousarray(samples[mix.loudest] if mix.cancels else mono)
    return np.concatenate(list(by_torchaudio(iter([(mono, rate)])))) if len(mono) else mono
