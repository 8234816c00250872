"""Mel-frequency cepstral coefficients: the labels of HuBERT's first iteration, and its filter bank.

Davis & Mermelstein 1980, with the usual 25 ms window every 10 ms, 40 mel bands up to 8 kHz, 13
coefficients and their first and second differences (39 values), as in HuBERT (arXiv 2106.07447, §IV.B).
"""

from __future__ import annotations

import numpy as np
import torch

from spiritlm_core.speech.grid import unit_count
from spiritlm_core.speech.mel import HOP, WINDOW, mel_energies, mel_filters

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
    stacked: np.ndarray = frames[index].reshape(count, frames.shape[1] * 3)
    return stacked
