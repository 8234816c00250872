"""Speech while its units are still coming, as from a language model that is writing its answer."""

from __future__ import annotations

import numpy as np

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.speech.vocoder.frames import Stream, Streams, streams_of
from spiritlm_core.speech.vocoder.vocoder import Speaker, Vocoder
from spiritlm_core.tokens.speech import UnitStreams


class SpeechStream:
    """Takes units, one entry of each stream per unit, and gives their waveform as soon as it is certain.

    All pieces together are ``vocoder.decode`` of all units with predicted durations, up to rounding. A piece comes when
    what follows can no longer change it: ``VocoderConfig.context`` frames and a few units behind what was taken.

    Example:
        >>> stream = SpeechStream(vocoder)  # doctest: +SKIP
        >>> for units in coming: play(stream.take(units))  # doctest: +SKIP
        >>> play(stream.end())  # doctest: +SKIP
    """

    def __init__(
        self, vocoder: Vocoder, speaker: Speaker | None = None, expression: int | None = None, chunk: int = 12
    ) -> None:
        """A piece has at least `chunk` frames of 40 ms, but for the last one.

        Raises:
            SpiritLMError: no such speaker or expression, or a chunk without frames.
        """
        if chunk < 1:
            raise SpiritLMError(f"a chunk has at least one frame, not {chunk}")
        self._vocoder, self._chunk = vocoder, chunk
        self._voice = vocoder.voice(speaker, expression)
        self._rows: Streams = {}
        self._frames: Streams = {}
        self._timed = 0  # units whose duration is certain
        self._made = 0  # frames whose waveform was given

    def take(self, units: UnitStreams) -> Waveform:
        """Take more units; what can be heard by now and was not given before, float32[samples], often nothing.

        Raises:
            SpiritLMError: as ``Vocoder.decode``; or pitch or style are not one for each HuBERT unit.
        """
        new = streams_of(units, self._vocoder.config)
        if wrong := [name for name, stream in new.items() if len(stream) != len(new["units"])]:
            raise SpiritLMError(f"{wrong[0]} has {len(new[wrong[0]])} units, but there is one for each HuBERT unit")
        self._rows = _joined(self._rows, new)
        self._time(len(self._rows["units"]) - self._vocoder.config.duration_context)
        return self._make(len(self._frames.get("units", ())) - self._vocoder.config.context[1])

    def end(self) -> Waveform:
        """Whatever is left when no more units come."""
        if not self._rows:
            return np.zeros(0, np.float32)
        self._time(len(self._rows["units"]))
        self._chunk = 1
        return self._make(len(self._frames["units"]))

    def _time(self, certain: int) -> None:
        """Fix the durations of the units before `certain`."""
        if certain <= self._timed:
            return
        first = max(0, self._timed - self._vocoder.config.duration_context)
        lasting = self._vocoder.durations(self._rows["units"][first:])[self._timed - first : certain - first]
        new = {name: np.repeat(stream[self._timed : certain], lasting) for name, stream in self._rows.items()}
        self._frames, self._timed = _joined(self._frames, new), certain

    def _make(self, certain: int) -> Waveform:
        """The waveform of the frames before `certain` that was not given yet, if it is long enough."""
        if certain - self._made < self._chunk:
            return np.zeros(0, np.float32)
        waveform = self._vocoder.between(self._frames, self._voice, self._made, certain)
        self._made = certain
        return waveform


def _joined(one: Streams, other: Streams) -> Streams:
    return {name: _after(one.get(name), stream) for name, stream in other.items()}


def _after(before: Stream | None, stream: Stream) -> Stream:
    return stream if before is None else np.concatenate([before, stream])
