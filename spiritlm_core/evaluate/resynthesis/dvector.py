"""d-vectors: what a voice sounds like, in 256 numbers (Wan et al. 2018, GE2E, arXiv 1710.10467)."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torchaudio.transforms import MelSpectrogram

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.lake.schema import SAMPLE_RATE

_BANDS, _SIZE, _LAYERS, _HOP = 40, 256, 3, 160
_WINDOW = 160
"""Frames of 10 ms that the network hears at once; windows overlap by half (section 3.2)."""
_LOUDNESS = 10 ** (-30 / 20)  # root mean square; quieter speech was raised to it in training

Embedding = NDArray[np.float32]


class SpeakerEncoder(nn.Module):
    """Three LSTM layers over 40 mel bands, and a linear layer on the last state; weights of Resemblyzer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_BANDS, _SIZE, _LAYERS, batch_first=True)
        self.linear = nn.Linear(_SIZE, _SIZE)
        self.mel = MelSpectrogram(
            SAMPLE_RATE,
            n_fft=400,
            hop_length=_HOP,
            n_mels=_BANDS,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

    @classmethod
    def load(cls, path: Path) -> SpeakerEncoder:
        """Read a checkpoint in the layout of Resemblyzer, with the keys ``lstm.*`` and ``linear.*`` of `model_state`.

        Raises:
            ModelReferenceError: it is none.
        """
        model = cls()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            for part in ("lstm", "linear"):
                weights = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
                getattr(model, part).load_state_dict(weights)
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelReferenceError(f"{path} is not a GE2E speaker encoder of Resemblyzer: {reason}") from error
        return model.eval()

    @torch.inference_mode()
    def embed(self, waveform: NDArray[np.float32]) -> Embedding:
        """The d-vector of float32[T] at 16 kHz: float32[256] of length 1, the mean over windows of 1.6 s.

        The front end is that of the published weights (mel power, not its logarithm), but for the removal of pauses.
        """
        windows = self._windows(torch.from_numpy(_loud_enough(waveform)))
        _, (state, _) = self.lstm(windows)
        parts = functional.normalize(functional.relu(self.linear(state[-1])), dim=1)
        return np.asarray(functional.normalize(parts.mean(dim=0), dim=0).numpy(), np.float32)

    def _windows(self, waveform: torch.Tensor) -> torch.Tensor:
        """float32[W, 160, 40]; the end is padded with silence if more than a quarter of its window is speech."""
        frames = self.mel(waveform).T
        count = max(1, 1 + round((len(frames) - _WINDOW) / (_WINDOW // 2)))
        needed = (count - 1) * (_WINDOW // 2) + _WINDOW
        padded = functional.pad(frames, (0, 0, 0, max(0, needed - len(frames))))
        return padded[:needed].unfold(0, _WINDOW, _WINDOW // 2).transpose(1, 2)


def _loud_enough(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    loudness = float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2))) if len(waveform) else 0.0
    quiet = 0 < loudness < _LOUDNESS
    return waveform * np.float32(_LOUDNESS / loudness) if quiet else waveform


def cosine(first: Embedding, second: Embedding) -> float:
    """Similarity of two d-vectors, 0 to 1 since these have no negative entries."""
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms else 0.0
