"""Where the turns of a speaker begin and end, in sound that keeps coming."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import to_float32
from spiritlm_core.audio.config import VadConfig
from spiritlm_core.audio.vad import WINDOW, WINDOW_SECONDS, VoiceActivity
from spiritlm_core.lake.schema import SAMPLE_RATE

Samples = NDArray[np.float32]
_VAD = VadConfig()
_BEFORE = round(0.3 / WINDOW_SECONDS)  # windows in front of the first speech that belong to a turn
_AFTER = round(0.2 / WINDOW_SECONDS)  # and behind the last
_LOUD = round(_VAD.min_speech / WINDOW_SECONDS)  # windows of speech that make a turn; fewer are a noise


class Turns:
    """Cuts 16-bit mono sound of `rate` hertz into turns, which end at a pause of so many seconds or at `longest`."""

    def __init__(self, rate: int, pause: float, longest: float) -> None:
        import av

        self._activity = VoiceActivity()
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self._rate, self._pause = rate, max(1, round(pause / WINDOW_SECONDS))
        self._longest = int(longest / WINDOW_SECONDS)
        self._rest = np.zeros(0, np.float32)  # less than a window
        self._quiet: deque[Samples] = deque(maxlen=_BEFORE + _LOUD)
        self._turn: list[Samples] = []
        self._run = 0  # windows of speech while there is no turn, of silence within one

    def feed(self, pcm: bytes) -> Iterator[Samples | None]:
        """None for a turn that begins in this sound, float32[samples] at 16 kHz of one that ends in it."""
        sound = np.concatenate([self._rest, self._resampled(np.frombuffer(pcm, "<i2"))])
        usable = len(sound) - len(sound) % WINDOW
        windows, self._rest = sound[:usable].reshape(-1, WINDOW), sound[usable:]
        if not len(windows):
            return
        for window, probability in zip(windows, self._activity.probabilities(windows), strict=True):
            if not self._turn:
                if self._begins(window, probability):
                    yield None
            elif (ended := self._ends(window, probability)) is not None:
                yield ended

    def end(self) -> Samples | None:
        """The turn that is under way, which ends here; None if there is none."""
        turn, self._turn, self._run = self._turn, [], 0
        return np.concatenate(turn) if turn else None

    def _begins(self, window: Samples, probability: float) -> bool:
        self._quiet.append(window)
        self._run = self._run + 1 if probability >= _VAD.onset else 0
        if self._run < _LOUD:
            return False
        self._turn, self._run = list(self._quiet), 0
        self._quiet.clear()
        return True

    def _ends(self, window: Samples, probability: float) -> Samples | None:
        self._turn.append(window)
        self._run = self._run + 1 if probability < _VAD.offset else 0
        if self._run < self._pause and len(self._turn) < self._longest:
            return None
        if self._run > _AFTER:
            del self._turn[_AFTER - self._run :]
        return self.end()

    def _resampled(self, samples: NDArray[np.int16]) -> Samples:
        import av

        if not len(samples):
            return np.zeros(0, np.float32)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return to_float32(np.concatenate(parts)) if parts else np.zeros(0, np.float32)
