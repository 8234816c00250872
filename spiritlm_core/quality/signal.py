"""What the samples of a segment say of its quality, without a model but that of voice activity."""

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.vad import WINDOW, speech_probabilities
from spiritlm_core.lake.schema import SAMPLE_RATE, Row
from spiritlm_core.quality import fingerprint

Waveform = NDArray[np.float32]

_FULL_SCALE = 32_700 / 32_768  # clipped samples lose a little in resampling
_SILENT, _INAUDIBLE = 10**-3.5, 10**-5.0  # 35 dB below the loudest; 50 dB below it
_LEAST = 1e-12  # of a power: far below one step of 16 bits
_SPEECH, _PAUSE = 0.5, 0.15  # probability of speech in speech, and in a pause
_WINDOWS = 5  # of pauses that say how loud the noise is
_SNR = (-10.0, 60.0)


def measure(waveform: Waveform) -> Row:
    """The columns of `quality` that float32[T] at 16 kHz gives by itself.

    `level` is the root of the mean square in dB of full scale; `clipping` the share of samples at full scale, `dc` the
    mean of the samples, `silence` the share of windows of 32 ms that are 35 dB below the loudest, `speech` that of
    windows in which Silero VAD hears speech.
    """
    energies, probabilities = _energies(waveform), speech_probabilities(waveform)
    bands, spectrum = fingerprint.spectra(waveform)
    return {
        "level": 10 * np.log10(max(float(np.mean(waveform**2)), _LEAST)),
        "clipping": float(np.mean(np.abs(waveform) >= _FULL_SCALE)),
        "dc": float(np.mean(waveform)),
        "silence": float(np.mean(energies <= energies.max() * _SILENT)),
        "bandwidth": bandwidth(spectrum),
        "snr": snr(waveform, energies, probabilities[: len(energies)]),
        "speech": float(np.mean(probabilities >= _SPEECH)),
        "fingerprint": fingerprint.fingerprint(bands),
    }


def _energies(waveform: Waveform) -> NDArray[np.float32]:
    """Mean square of each whole window of 32 ms."""
    padded = np.pad(waveform, (0, max(0, WINDOW - len(waveform))))
    usable = len(padded) - len(padded) % WINDOW
    return (padded[:usable].reshape(-1, WINDOW) ** 2).mean(axis=1)


def bandwidth(spectrum: NDArray[np.float32]) -> float:
    """The highest frequency in hertz that is not 50 dB below the loudest of float32[2049], in bands of 125 Hz."""
    bands = np.add.reduceat(spectrum[:-1], np.arange(0, len(spectrum) - 1, 32))
    heard = np.flatnonzero(bands >= bands.max() * _INAUDIBLE)
    return float(heard[-1] + 1) * 32 * SAMPLE_RATE / fingerprint.WINDOW


def snr(waveform: Waveform, energies: NDArray[np.float32], probabilities: NDArray[np.float32]) -> float:
    """Signal-to-noise ratio in dB: by the noise in pauses of 0.16 s or more in all, else as :func:`wada_snr` has it."""
    pauses = energies[probabilities < _PAUSE]
    if len(pauses) < _WINDOWS or not (probabilities >= _SPEECH).any():
        return wada_snr(waveform)
    noise = max(float(pauses.mean()), _LEAST)
    return float(np.clip(10 * np.log10(max(float(energies.mean()) - noise, _LEAST) / noise), *_SNR))


_WADA_DB = np.arange(-10, 61, 5)
_WADA = [0.4121, 0.4238, 0.4618, 0.5435, 0.6673, 0.8123, 0.9558, 1.0847, 1.1941, 1.2842, 1.3573, 1.4159]
_WADA += [1.4628, 1.5002, 1.53]  # from 50 dB on


def wada_snr(waveform: Waveform) -> float:
    """Signal-to-noise ratio in dB by how amplitudes are distributed (WADA-SNR, Kim and Stern 2008).

    Speech is taken to have a gamma distribution of shape 0.4, noise a normal one. ``ln E|z| - E ln|z|`` of their sum
    (equation 4) rises with the ratio; its values at -10, -5 … 60 dB are in a table.
    """
    amplitudes = np.maximum(np.abs(waveform), 2.0**-16).astype(np.float64)  # half a step of 16 bits
    return float(np.interp(np.log(amplitudes.mean()) - np.log(amplitudes).mean(), _WADA, _WADA_DB))
