"""Speech in whatever form a caller has it, to one 16 kHz mono waveform."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE

Audio = str | os.PathLike[str] | bytes | ArrayLike
"""A path, the bytes of a file, or samples: float[T] or float[channels, T] as an array or tensor."""


def as_waveform(audio: Audio, sample_rate: int | None = None, channel: int | None = None) -> NDArray[np.float32]:
    """Mono samples at 16 kHz, float32[T].

    Resampling is that of `torchaudio.functional.resample` with its default filter, as in the released Spirit LM.

    Args:
        audio: A path, the bytes of a file in any usual format, or samples in [-1, 1].
        sample_rate: Of samples, in hertz; 16 000 if not given. A file says its own.
        channel: Which of two channels to take; both are averaged if not given.

    Raises:
        SpiritLMError: It cannot be read, is not float[T] or float[channels, T], has more than two channels or no
            such channel, or holds values that are not finite.
    """
    if isinstance(audio, str | os.PathLike | bytes):
        if sample_rate is not None:
            raise SpiritLMError("sample_rate is for samples: a file says its own sampling rate")
        samples, rate = _read(audio)
    else:
        samples, rate = _array(audio), sample_rate or SAMPLE_RATE
    return _resample(_mono(samples, channel), rate)


def _read(audio: str | os.PathLike[str] | bytes) -> tuple[NDArray[np.float32], int]:
    from spiritlm_core.audio.codec import read_waveform

    name = "the audio" if isinstance(audio, bytes) else os.fspath(audio)
    try:
        return read_waveform(audio if isinstance(audio, bytes) else Path(audio).read_bytes(), name)
    except Rejection as error:
        raise SpiritLMError(f"{name}: {error}") from error
    except OSError as error:
        raise SpiritLMError(f"{name}: cannot be read: {error.strerror or error}") from error


def _array(audio: Any) -> NDArray[np.float32]:
    """float32[channels, T]; tensors may be on a GPU, of any float type, and part of a graph."""
    if hasattr(audio, "detach"):
        audio = audio.detach().cpu()
        audio = audio.float() if audio.is_floating_point() else audio
    samples = np.asarray(audio)
    if not np.issubdtype(samples.dtype, np.floating) or samples.ndim not in (1, 2):
        raise SpiritLMError(f"a waveform is float[T] or float[channels, T], not {samples.dtype}{list(samples.shape)}")
    return np.atleast_2d(samples.astype(np.float32))


def _mono(samples: NDArray[np.float32], channel: int | None) -> NDArray[np.float32]:
    if not np.isfinite(samples).all():
        raise SpiritLMError("the waveform holds values that are not finite")
    if not 1 <= len(samples) <= 2:
        raise SpiritLMError(f"audio has one or two channels, not {len(samples)}: mix them first (float[channels, T])")
    if channel is not None and not 0 <= channel < len(samples):
        raise SpiritLMError(f"there is no channel {channel}: the audio has {len(samples)}, counted from 0")
    mono: NDArray[np.float32] = samples.mean(axis=0) if channel is None else samples[channel]
    return np.ascontiguousarray(mono)


def _resample(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    if rate <= 0:
        raise SpiritLMError(f"a sampling rate of {rate} Hz cannot be")
    import torch

    resampled: NDArray[np.float32] = _resampler(rate)(torch.from_numpy(samples)).numpy()
    return resampled


@lru_cache(maxsize=8)
def _resampler(rate: int) -> Any:
    """`torchaudio.functional.resample` with its filter kept: making that takes longer than a short recording does."""
    import torch
    from torchaudio.transforms import Resample

    return Resample(rate, SAMPLE_RATE, dtype=torch.float32)
