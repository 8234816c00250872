"""How far a resynthesised clip is from the recording: F0 (FCPE), mel-cepstrum (WORLD, Morise et al. 2016), and voice.

Voices are compared as d-vectors, 256 numbers (Wan et al. 2018, GE2E, arXiv 1710.10467).
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torchaudio.transforms import MelSpectrogram

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.pitch.f0 import melody

FRAME_SECONDS = 0.01
ORDER = 24  # coefficients of the mel-cepstrum, without the 0th, which is loudness
WARP = 0.42  # all-pass constant that comes closest to the mel scale at 16 kHz (Tokuda et al. 1994)
_FLOOR = 1e-8  # of the highest power of a clip, -80 dB: what lies below is as good as silence
_SHORTEST = SAMPLE_RATE // 10  # FCPE and WORLD need some samples to look at

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Analysis:
    """One waveform at 100 Hz."""

    f0: Floats  # float64[F] in hertz, 0 where unvoiced
    cepstra: Floats  # float64[F, 24], coefficients 1 to 24


def analyse(waveform: NDArray[np.float32]) -> Analysis:
    """F0 by FCPE, and the mel-cepstrum of WORLD's CheapTrick envelope, of float32[T] at 16 kHz, at most 100 s.

    FCPE is the tracker of the pitch units, too. Those of WORLD were tried: DIO calls a third of the voiced frames of
    Griffin-Lim speech unvoiced, Harvest calls unvoiced sounds voiced; neither is fair to speech with a rough phase.
    """
    samples = np.pad(waveform, (0, max(0, _SHORTEST - len(waveform))))
    track = melody(samples)
    f0 = np.where(track.voiced, track.f0, 0).astype(np.float64)
    times = np.arange(len(f0)) * FRAME_SECONDS
    return Analysis(f0, mel_cepstrum(world().cheaptrick(samples.astype(np.float64), f0, times, SAMPLE_RATE)))


def mel_cepstrum(power: Floats) -> Floats:
    """Coefficients 1 to 24 of the mel-cepstrum, float64[F, 24], of power spectra float64[F, K] from 0 to 8 kHz.

    ``ln|H(w)| = sum_m c_m cos(m w')`` with the frequency w' that the all-pass filter makes of w (Tokuda et al. 1994,
    "Mel-generalized cepstral analysis"); the cosines are integrated over w' by the trapezoidal rule.
    """
    floor = _FLOOR * max(float(power.max()), np.finfo(np.float64).tiny / _FLOOR)
    return np.log(np.maximum(power, floor)) @ _cosines(power.shape[1])


@cache
def _cosines(bins: int) -> Floats:
    """float64[K, 24]; ln of the power is twice ln|H|, the integral of cos² half of pi, so the weights are 1 / pi."""
    omega = np.linspace(0, np.pi, bins)
    warped = omega + 2 * np.arctan2(WARP * np.sin(omega), 1 - WARP * np.cos(omega))
    inner = np.concatenate([[warped[0]], (warped[1:] + warped[:-1]) / 2, [warped[-1]]])
    return np.cos(np.outer(warped, np.arange(1, ORDER + 1))) * np.diff(inner)[:, None] / np.pi


@cache
def world() -> Any:
    """The package ``pyworld``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of pkg_resources is no concern of the user
        import pyworld
    return pyworld


_DECIBEL = 10 / np.log(10) * np.sqrt(2)
_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2


@dataclass(frozen=True)
class Distance:
    """Sums over the frames of one clip."""

    mcd: float  # mel-cepstral distortion in dB along the cheapest warping path, mean over the path
    mcd_in_place: float | None  # the same frame by frame; None where durations were not kept
    squared_cents: float  # sum of squared F0 differences in cents over the frames voiced in both
    voiced: int  # number of these frames
    wrong_voicing: int  # number of frames voiced in one of them only
    frames: int  # number of frames that were compared


def compare(original: Analysis, other: Analysis, *, timed: bool) -> Distance:
    """Compare two renderings of one clip; `timed` says whether the other one kept the durations.

    Then frames are paired one by one as far as both go; otherwise F0 and voicing are compared along the warping path,
    too.
    """
    distances = distortions(original.cepstra, other.cepstra)
    path = warping_path(distances)
    common = np.arange(min(distances.shape))
    pairs = np.stack([common, common], axis=1) if timed else path
    first, second = original.f0[pairs[:, 0]], other.f0[pairs[:, 1]]
    both = (first > 0) & (second > 0)
    cents = 1200 * np.log2(second[both] / first[both])
    return Distance(
        mcd=float(distances[path[:, 0], path[:, 1]].mean()),
        mcd_in_place=float(distances[common, common].mean()) if timed else None,
        squared_cents=float((cents**2).sum()),
        voiced=int(both.sum()),
        wrong_voicing=int(((first > 0) != (second > 0)).sum()),
        frames=len(pairs),
    )


def distortions(first: Floats, second: Floats) -> Floats:
    """Mel-cepstral distortion in dB of every pair of frames, float64[N, M].

    ``10 / ln 10 * sqrt(2 * sum_i (c_i - c'_i)**2)`` (Kubichek 1993, "Mel-cepstral distance measure for objective
    speech quality assessment").
    """
    from scipy.spatial.distance import cdist

    return _DECIBEL * cdist(first, second)


def warping_path(distances: Floats) -> NDArray[np.int64]:
    """The cheapest path from corner to corner (Sakoe & Chiba 1978, steps (1,1), (1,0), (0,1)), int64[P, 2].

    `distances` are float64[N, M], N and M at least 1. Computed by anti-diagonals, all cells of one at once; on a tie
    the diagonal step is taken.
    """
    height, width = distances.shape
    steps = np.zeros((height + width - 1, height), np.uint8)
    before = np.full(height + 1, np.inf)  # cost of row i at [i + 1] on the anti-diagonal before the last one
    last = np.full(height + 1, np.inf)
    before[0] = 0.0  # what the first cell comes from
    for k in range(height + width - 1):
        rows = np.arange(max(0, k - width + 1), min(k, height - 1) + 1)
        ways = np.stack([before[rows], last[rows], last[rows + 1]])
        steps[k, rows] = best = ways.argmin(axis=0)
        current = np.full(height + 1, np.inf)
        current[rows + 1] = ways[best, np.arange(len(rows))] + distances[rows, k - rows]
        before, last = last, current
    return _walked_back(steps, height - 1, width - 1)


def _walked_back(steps: NDArray[np.uint8], i: int, j: int) -> NDArray[np.int64]:
    path = [(i, j)]
    while i or j:
        step = steps[i + j, i]
        i, j = i - (step in (_DIAGONAL, _DOWN)), j - (step in (_DIAGONAL, _RIGHT))
        path.append((i, j))
    return np.array(path[::-1], np.int64)


_BANDS, _SIZE, _LAYERS, _HOP = 40, 256, 3, 160
_WINDOW = 160  # frames of 10 ms that the network hears at once; windows overlap by half (section 3.2)
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

        Raises ModelReferenceError: it is none.
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
