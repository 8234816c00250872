"""Mel spectra of waveforms at 16 kHz, and MFCC: windows of 25 ms every 10 ms, without padding, triangular filters."""

from functools import cache
from typing import Any

import numpy as np
import torch
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import unit_count

WINDOW = 400
HOP = 160


def window_count(samples: int) -> int:
    """Windows that fit a waveform."""
    return max(0, (samples - WINDOW) // HOP + 1)


def mel_centres(bands: int, low: float, high: float) -> np.ndarray:
    """``bands + 2`` frequencies in hertz, equally spaced on the mel scale of HTK, the edges included."""
    first, last = (hertz_to_mel(frequency, "htk") for frequency in (low, high))
    return np.asarray(mel_to_hertz(np.linspace(first, last, bands + 2), "htk"))


@cache
def mel_filters(bands: int, fft: int, device: str = "cpu", low: float = 20.0, **scale: Any) -> torch.Tensor:
    """Triangular filters over a spectrum from `low` hertz up to 8 kHz, float32[fft/2 + 1, bands].

    `scale` is as for `transformers.audio_utils.mel_filter_bank`; the mel scale of HTK, peaks of 1, if not given.
    """
    options = {"norm": None, "mel_scale": "htk"} | scale
    filters = mel_filter_bank(fft // 2 + 1, bands, low, SAMPLE_RATE / 2, SAMPLE_RATE, **options)
    return torch.from_numpy(filters.astype(np.float32)).to(device)


def mel_energies(frames: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Power in each band, float32[N, bands], of frames float32[N, 400]."""
    spectrum = torch.fft.rfft(frames * window, 2 * (len(filters) - 1))
    return spectrum.abs() ** 2 @ filters


_FFT = 512
_BANDS = 40
_COEFFICIENTS = 13
PREEMPHASIS = 0.97
_FLOOR = 1e-8


def log_mel(waveform: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of mel band energies, float32[T, 40], ``T = (samples - 400) // 160 + 1`` (0 if shorter)."""
    if len(waveform) < WINDOW:
        return torch.zeros(0, _BANDS)
    emphasised = torch.cat([waveform[:1], waveform[1:] - PREEMPHASIS * waveform[:-1]])
    window = torch.hann_window(WINDOW, periodic=False)
    return torch.log(mel_energies(emphasised.unfold(0, WINDOW, HOP), window, mel_filters(_BANDS, _FFT)) + _FLOOR)


def mfcc(waveform: torch.Tensor) -> np.ndarray:
    """39 coefficients at 100 Hz: 13 cepstra, their slopes and the slopes of the slopes, float32[T, 39]."""
    from scipy.fft import dct

    cepstra = dct(log_mel(waveform).numpy(), type=2, norm="ortho", axis=1)[:, :_COEFFICIENTS]
    slopes = _slopes(cepstra)
    return np.concatenate([cepstra, slopes, _slopes(slopes)], axis=1).astype(np.float32)


def _slopes(frames: np.ndarray, reach: int = 2) -> np.ndarray:
    """Regression slope over ``2 reach + 1`` frames, edges repeated (Furui 1986)."""
    if not len(frames):
        return frames
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    count = len(frames)
    total = sum(k * (padded[reach + k : reach + k + count] - padded[reach - k : reach - k + count]) for k in (1, 2))
    return np.asarray(total) / 10.0


def mfcc_25hz(waveform: torch.Tensor) -> np.ndarray:
    """MFCC frames stacked to the 25 Hz of the units, float32[N, 117] with as many rows as units.

    Unit frame i sees samples 640 i to 640 i + 720, which are the MFCC windows 4 i, 4 i + 1 and 4 i + 2.
    """
    frames = mfcc(waveform)
    count = unit_count(len(waveform))
    index = 4 * np.arange(count)[:, None] + np.arange(3)
    return frames[index].reshape(count, frames.shape[1] * 3)
