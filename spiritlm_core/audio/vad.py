"""Voice activity, and segments as long as allowed, cut at the longest pauses.

Silero VAD v6, as faster-whisper ships it, run by onnxruntime on one thread.

The network sees windows of 512 samples (32 ms) after the last 64 samples of the one before.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spiritlm_core.audio.codec import to_float32
from spiritlm_core.audio.config import AudioConfig, VadConfig
from spiritlm_core.audio.samples import Samples
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE

WINDOW = 512
WINDOW_SECONDS = WINDOW / SAMPLE_RATE
_CONTEXT = 64
_BATCH = 1024  # windows per call, so that memory does not grow with the recording
_STATE = (1, 1, 128)


@dataclass(frozen=True)
class Region:
    """A stretch of speech, in seconds."""

    start: float
    end: float


class VoiceActivity:
    """Tells speech from what is none, window by window, while the sound comes; it remembers what came before."""

    def __init__(self) -> None:
        self._session = _session()
        self._hidden = self._cell = np.zeros(_STATE, np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        """Probability of speech, float32[N], of the next windows, float32[N, 512] at 16 kHz."""
        before = np.concatenate([self._context[None], windows[:-1, -_CONTEXT:]])
        batch = np.concatenate([before, windows], axis=1)
        state = {"h": self._hidden, "c": self._cell}
        output, self._hidden, self._cell = self._session.run(None, {"input": batch, **state})
        self._context = windows[-1, -_CONTEXT:]
        return np.asarray(output.reshape(-1))


def speech_probabilities(waveform: Samples) -> np.ndarray:
    """Probability of speech, float32[ceil(T / 512)], of int16[T] or float32[T] at 16 kHz."""
    activity, probabilities = VoiceActivity(), []
    for first in range(0, len(waveform), _BATCH * WINDOW):
        part = to_float32(waveform[first : first + _BATCH * WINDOW])
        windows = np.pad(part, (0, -len(part) % WINDOW)).reshape(-1, WINDOW)
        probabilities.append(activity.probabilities(windows))
    return np.concatenate(probabilities) if probabilities else np.zeros(0, np.float32)


def speech_regions(probabilities: np.ndarray, config: VadConfig) -> list[Region]:
    """Stretches that start at `onset` and last until the probability stays below `offset` for `min_pause`.

    `probabilities` are float32[N], one per 32 ms.
    """
    regions: list[Region] = []
    start: int | None = None
    for index, probability in enumerate([*probabilities, -1.0]):
        if start is None and probability >= config.onset:
            start = index
        elif start is not None and probability < config.offset:
            _extend(regions, Region(start * WINDOW_SECONDS, index * WINDOW_SECONDS), config.min_pause)
            start = None
    return [region for region in regions if region.end - region.start >= config.min_speech]


def loud_region(waveform: Samples) -> Region | None:
    """From the first to the last 32 ms that is within 35 dB of the loudest: where the energy of int16[T] is."""
    usable = len(waveform) - len(waveform) % WINDOW
    if not usable:
        return None
    energy = (to_float32(waveform[:usable]).reshape(-1, WINDOW) ** 2).mean(axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10**-3.5)
    return Region(float(loud[0]) * WINDOW_SECONDS, float(loud[-1] + 1) * WINDOW_SECONDS) if len(loud) else None


def _extend(regions: list[Region], region: Region, min_pause: float) -> None:
    if regions and region.start - regions[-1].end < min_pause:
        regions[-1] = Region(regions[-1].start, region.end)
    else:
        regions.append(region)


@lru_cache(maxsize=1)
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(_model_path()), options, providers=["CPUExecutionProvider"])


def _model_path() -> Path:
    """The model inside faster-whisper, found without importing the package, which would load CTranslate2."""
    package = importlib.util.find_spec("faster_whisper")
    folders = package.submodule_search_locations if package else None
    models = sorted(Path(folders[0]).glob("assets/silero_vad_v6*.onnx")) if folders else []
    if not models:
        raise SpiritLMError("voice activity needs faster-whisper with its Silero VAD v6: install faster-whisper>=1.2")
    return models[0]


def segments(
    regions: Sequence[Region], probabilities: np.ndarray, duration: float, config: AudioConfig
) -> list[Region]:
    """Cut a recording of `duration` seconds into segments of at most ``config.max_seconds``, padding included.

    All speech becomes one segment when it fits. Otherwise each segment ends at the longest pause of the second half of
    what fits, and at any pause longer than ``config.max_pause``. The `probabilities` of speech, one per 32 ms, say
    where an endless region is best cut. Segments come in order and do not overlap.
    """
    if not regions:
        return []
    room = config.max_seconds - 2 * config.padding
    if regions[-1].end - regions[0].start <= room:
        return _padded([Region(regions[0].start, regions[-1].end)], duration, config.padding)
    rest = [part for region in regions for part in _short_enough(region, probabilities, room)]
    cut: list[Region] = []
    while rest:
        count = _take(rest, room, config.max_pause)
        cut.append(Region(rest[0].start, rest[count - 1].end))
        rest = rest[count:]
    return _padded(cut, duration, config.padding)


def _take(rest: Sequence[Region], room: float, max_pause: float) -> int:
    """How many of the regions go into the next segment."""
    start, end = rest[0].start, rest[0].end
    best, best_pause = 0, -1.0
    for count, following in enumerate(rest[1:], 1):
        pause = following.start - end
        if pause > max_pause:
            return count
        if pause > best_pause and end - start >= room / 2:
            best, best_pause = count, pause
        if following.end - start > room:
            return best or count
        end = following.end
    return len(rest)


def _short_enough(region: Region, probabilities: np.ndarray, room: float) -> list[Region]:
    """Cut a region without pauses where speech is least likely, in the second half of what fits."""
    parts, start = [], region.start
    while region.end - start > room:
        first, last = round((start + room / 2) / WINDOW_SECONDS), int((start + room) / WINDOW_SECONDS)
        cut = (first + int(np.argmin(probabilities[first:last]))) * WINDOW_SECONDS
        parts.append(Region(start, cut))
        start = cut
    return [*parts, Region(start, region.end)]


def _padded(cut: Sequence[Region], duration: float, padding: float) -> list[Region]:
    """Widen each segment by `padding`, but no further than half-way to its neighbour."""
    borders = [0.0, *((left.end + right.start) / 2 for left, right in pairwise(cut)), duration]
    return [
        Region(max(one.start - padding, low), min(one.end + padding, high))
        for one, low, high in zip(cut, borders, borders[1:], strict=False)
    ]
