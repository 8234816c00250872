"""Plain baselines: a log-mel spectrogram back to a waveform by Griffin-Lim, and the mean spectrum of each unit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.transforms import GriffinLim, InverseMelScale, MelSpectrogram

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import FRAME

HOP = 160
FRAMES_PER_UNIT = FRAME // HOP
_SIZE, _BANDS, _LOWEST = 1024, 80, 1e-5

LogMel = NDArray[np.float32]


class MelInverter:
    """80 mel bands of 64 ms windows every 10 ms, and back by Griffin & Lim 1984, beginning with zero phase.

    The accelerated form (Perraudin et al. 2013) was tried: no fewer word errors, and a larger mel-cepstral distortion.
    """

    def __init__(self, iterations: int) -> None:
        shared = {"n_mels": _BANDS, "sample_rate": SAMPLE_RATE, "mel_scale": "slaney", "norm": "slaney"}
        self._mel = MelSpectrogram(n_fft=_SIZE, hop_length=HOP, power=1.0, **shared)
        self._linear = InverseMelScale(n_stft=_SIZE // 2 + 1, **shared)
        # a random phase would be drawn from torch's global generator
        self._phase = GriffinLim(_SIZE, iterations, hop_length=HOP, power=1.0, momentum=0.0, rand_init=False)

    def log_mel(self, waveform: Waveform) -> LogMel:
        """Natural logarithm of mel magnitudes, float32[T // 160 + 1, 80], of float32[T]."""
        with torch.inference_mode():
            mel = self._mel(torch.from_numpy(waveform)).clamp(min=_LOWEST)
        return np.asarray(mel.log().T.contiguous().numpy(), np.float32)

    def waveform(self, log_mel: LogMel, samples: int) -> Waveform:
        """The waveform float32[samples] of float32[F, 80]; silence where there are too few frames."""
        with torch.no_grad():
            linear = self._linear(torch.from_numpy(log_mel).T.exp())
            samples_out = self._phase(linear).clamp(-1, 1).numpy()[:samples]
        return np.pad(samples_out, (0, samples - len(samples_out))).astype(np.float32)


class UnitMeans:
    """A vocoder that is not trained: every frame of a unit sounds like the mean log-mel spectrum of that unit."""

    def __init__(self, inverter: MelInverter, spoken: Iterable[tuple[NDArray[np.integer], Waveform]]) -> None:
        """Fit the means.

        Args:
            inverter: Its spectrogram.
            spoken: Units int[N] at 25 Hz and waveform of each train clip, at least one.
        """
        self._inverter = inverter
        sums: dict[int, NDArray[np.float64]] = {}
        counts: dict[int, int] = {}
        for units, waveform in spoken:
            frames = inverter.log_mel(waveform)
            repeated = np.repeat(units, FRAMES_PER_UNIT)[: len(frames)]
            for unit in np.unique(repeated).tolist():
                chosen = frames[: len(repeated)][repeated == unit]
                sums[unit] = sums.get(unit, np.zeros(_BANDS)) + chosen.sum(axis=0, dtype=np.float64)
                counts[unit] = counts.get(unit, 0) + len(chosen)
        self.means = {unit: (sums[unit] / counts[unit]).astype(np.float32) for unit in sorted(sums)}
        overall = sum(sums.values()) / sum(counts.values())
        self._unknown = np.asarray(overall, np.float32)
        """The spectrum of a unit that no train clip has."""

    def waveform(self, units: NDArray[np.integer]) -> Waveform:
        """float32[640 * N] of int[N] units, not collapsed."""
        rows = [self.means.get(unit, self._unknown) for unit in np.asarray(units).tolist()]
        log_mel = np.repeat(np.stack(rows), FRAMES_PER_UNIT, axis=0)
        return self._inverter.waveform(np.concatenate([log_mel, log_mel[-1:]]), FRAME * len(rows))
