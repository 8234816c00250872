"""Mel spectra of waveforms at 16 kHz: windows of 25 ms every 10 ms, without padding, through triangular filters."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz

from spiritlm_core.lake.schema import SAMPLE_RATE

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
    """Triangular filters over a spectrum up to 8 kHz, float32[fft/2 + 1, bands].

    Args:
        bands: Filters.
        fft: Length of the Fourier transform.
        device: Where they are wanted.
        low: Where the first one begins, in hertz.
        scale: As for `transformers.audio_utils.mel_filter_bank`; the mel scale of HTK, peaks of 1, if not given.
    """
    options = {"norm": None, "mel_scale": "htk"} | scale
    filters = mel_filter_bank(fft // 2 + 1, bands, low, SAMPLE_RATE / 2, SAMPLE_RATE, **options)
    return torch.from_numpy(filters.astype(np.float32)).to(device)


def mel_energies(frames: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Power in each band, float32[N, bands], of frames float32[N, 400]."""
    spectrum = torch.fft.rfft(frames * window, 2 * (len(filters) - 1))
    energies: torch.Tensor = spectrum.abs() ** 2 @ filters
    return energies
