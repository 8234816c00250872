"""Speech-like clips with known F0: vowels with a gliding pitch, hisses and silences."""

import numpy as np
import pyarrow as pa

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.lake.schema import SAMPLE_RATE, table_of

VOWELS = ((700, 1200), (300, 2300), (350, 800), (500, 1800))


def vowel(seconds: float, first: float, last: float, formants: tuple[int, int]) -> np.ndarray:
    """Harmonics of an F0 that glides from `first` to `last` hertz, shaped by two formants."""
    count = round(seconds * SAMPLE_RATE)
    f0 = np.linspace(first, last, count)
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    wave = np.zeros(count)
    for harmonic in range(1, 30):
        gain = sum(1 / (1 + ((harmonic * f0 - formant) / 120) ** 2) for formant in formants) + 0.02
        wave += gain * np.sin(harmonic * phase) * (harmonic * f0 < 7000)
    return (0.1 * wave * np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / 200)).astype(np.float32)


def speech(seed: int, seconds: float, pitch: float = 150.0) -> np.ndarray:
    """Random vowels, hisses and silences, float32[T]."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        first, last = pitch * 2 ** rng.uniform(-0.4, 0.4, 2)
        parts.append(vowel(rng.uniform(0.15, 0.4), first, last, VOWELS[rng.integers(len(VOWELS))]))
        parts.append(rng.normal(0, 0.02, rng.integers(800, 2400)).astype(np.float32))
        parts.append(rng.normal(0, 1e-4, rng.integers(200, 2000)).astype(np.float32))
    return np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]


def row(name: str, waveform: np.ndarray, speaker: str | None = None, split: str = "train") -> dict[str, object]:
    return {
        "utterance_id": name,
        "recording_id": name,
        "duration": len(waveform) / SAMPLE_RATE,
        "speaker": speaker,
        "split": split,
        "audio": encode_flac(waveform),
        "source_uri": f"memory://{name}",
    }


def table(*rows: dict[str, object]) -> pa.Table:
    return table_of(list(rows), AUDIO)


def corpus() -> pa.Table:
    """Twelve train clips of two speakers, about 14 s, and two held-out ones."""
    rows = [
        row(f"clip-{i}", speech(i, 0.6 + 0.1 * i, 120.0 if i % 2 else 220.0), "low" if i % 2 else "high")
        for i in range(12)
    ]
    return table(*rows, *(row(f"held-{i}", speech(100 + i, 1.0), "low", "held_out") for i in range(2)))
