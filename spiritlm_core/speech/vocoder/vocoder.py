"""Units to a 16 kHz waveform: whole, in batches, or piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.cores import pick_device
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.speech.vocoder.frames import Stream, Streams, frames_of, streams_of
from spiritlm_core.speech.vocoder.model import VocoderModel
from spiritlm_core.tokens.speech import Streams as UnitStreams

Speaker = int | str  # number of a voice, or its name where the voices have names

_LONGEST = 2500  # frames, 100 s, that are computed at once: bounds the memory that a long recording takes


class Vocoder:
    """A loaded vocoder.

    Example:
        >>> vocoder = Vocoder.load(Path("speech_tokenizer/vocoder"))  # doctest: +SKIP
        >>> waveform = vocoder.decode(tokenizer.encode("speech.flac"), predict_durations=False)  # doctest: +SKIP
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, model: VocoderModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> Vocoder:
        """Load ``config.json`` and ``model.safetensors`` of a vocoder's folder, onto a GPU if there is one.

        Raises ModelReferenceError: they are missing, damaged, or do not fit each other.
        """
        return cls(VocoderModel.load(folder, device or pick_device()))

    @property
    def config(self) -> VocoderConfig:
        """What it is made of, and how many units, voices and manners it knows."""
        return self.model.config

    def decode(self, units: UnitStreams, **options: Any) -> Waveform:
        """The waveform of units, float32[640 per frame] at 16 kHz in [-1, 1]; see :meth:`decode_batch`."""
        return self.decode_batch([units], **options)[0]

    def decode_batch(
        self,
        batch: Sequence[UnitStreams],
        *,
        speaker: Speaker | None = None,
        expression: int | None = None,
        predict_durations: bool = True,
        collapse: bool = False,
        batch_size: int = 8,
    ) -> list[Waveform]:
        """Waveforms of units, `batch_size` of similar length at once; what is in a batch changes rounding alone.

        Args:
            batch: HuBERT units; with pitch and style if the vocoder takes these, either one entry per HuBERT unit or
                at their own rates (12.5 and 1 Hz). Negative HuBERT units are dropped.
            speaker: the voice, by number or name; the vocoder's own default if not given (2 in the released ones).
            expression: the manner of speaking, where the vocoder has several; its default if not given (8).
            predict_durations: units last as long as the vocoder predicts; otherwise, and always where pitch comes
                at its own rate, as long as a unit of a recording.
            collapse: runs of equal units count as one before durations are predicted.
            batch_size: made at once.

        Raises SpiritLMError: no units, pitch or style where they are needed, one that the vocoder does not know,
        streams that do not fit each other, or no such voice or manner.
        """
        fixed = self.voice(speaker, expression)
        every = [self._frames(units, predict=predict_durations, collapse=collapse) for units in batch]
        order = sorted(range(len(every)), key=lambda i: len(every[i]["units"]))
        short = [i for i in order if len(every[i]["units"]) <= _LONGEST]
        waveforms_of = {i: self._in_pieces(every[i], fixed) for i in order[len(short) :]}
        for start in range(0, len(short), batch_size):
            group = short[start : start + batch_size]
            waveforms_of |= zip(group, self._together([every[i] for i in group], fixed), strict=True)
        return [waveforms_of[i] for i in range(len(every))]

    def speaker_id(self, name: str | None) -> int | None:
        """Number of the speaker called `name`; None if nobody is named, or it knows none of that name."""
        return self.config.speaker_names.index(name) if name in self.config.speaker_names else None

    def voice(self, speaker: Speaker | None = None, expression: int | None = None) -> dict[str, int]:
        """The speaker and the expression that are meant, as far as this vocoder has any; None is its default.

        Raises SpiritLMError: it has no such speaker or expression.
        """
        asked, numbers = {"speaker": self._numbered(speaker), "expression": expression}, {}
        for name, value in asked.items():
            size = self.config.embeddings.get(name, 0)
            if value is not None and not 0 <= value < size:
                known = f"0 to {size - 1}" if size else "none"
                raise SpiritLMError(f"this vocoder has no {name} {value}: it knows {known}")
            if size:
                numbers[name] = getattr(self.config, name) if value is None else value
        return numbers

    def _numbered(self, speaker: Speaker | None) -> int | None:
        """A name, or a number that is written out, as a number."""
        if not isinstance(speaker, str):
            return speaker
        if (number := self.speaker_id(speaker)) is None and not speaker.isdecimal():
            known = ", ".join(self.config.speaker_names[:20]) or "its speakers have numbers only"
            raise SpiritLMError(f"this vocoder has no speaker {speaker!r}: {known}")
        return int(speaker) if number is None else number

    @torch.inference_mode()
    def durations(self, units: NDArray[np.integer]) -> Stream:
        """Predicted frames of each unit, int64[N] of at least 1, for int[N]."""
        rows = torch.from_numpy(np.asarray(units, np.int64))[None].to(self._device)
        with _exact():
            return self.model.frames(rows)[0].cpu().numpy()

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _frames(self, units: UnitStreams, *, predict: bool, collapse: bool) -> Streams:
        streams = streams_of(units, self.config)
        return frames_of(streams, self.config, self.durations if predict else None, collapse=collapse)

    def _in_pieces(self, frames: Streams, fixed: dict[str, int]) -> Waveform:
        count = len(frames["units"])
        starts = range(0, count, _LONGEST)
        return np.concatenate([self.between(frames, fixed, at, min(at + _LONGEST, count)) for at in starts])

    def between(self, frames: Streams, fixed: dict[str, int], start: int, end: int) -> Waveform:
        """The waveform of frames `start` to `end`, float32[640 (end - start)], computed with what reaches into it.

        Args:
            frames: one entry of each stream per frame.
            fixed: see :meth:`voice`.
            start: first frame.
            end: frame behind the last one.
        """
        before, after = self.config.context
        first = max(0, start - before)
        seen = {name: stream[first : end + after] for name, stream in frames.items()}
        (waveform,) = self._together([seen], fixed)
        return waveform[(start - first) * FRAME : (end - first) * FRAME]

    @torch.inference_mode()
    def _together(self, items: Sequence[Streams], fixed: dict[str, int]) -> list[Waveform]:
        """Waveforms of items in one pass, the shorter ones padded."""
        lengths = [len(item["units"]) for item in items]
        padded = {
            name: np.stack([np.pad(item[name], (0, max(lengths) - n)) for item, n in zip(items, lengths, strict=True)])
            for name in items[0]
        }
        padded |= {name: np.full((len(items), max(lengths)), value) for name, value in fixed.items()}
        streams = {name: torch.from_numpy(rows).to(self._device) for name, rows in padded.items()}
        uneven = torch.tensor(lengths, device=self._device) if len(set(lengths)) > 1 else None
        with _exact():
            waveforms = self.model(streams, uneven).cpu().numpy()
        return [waveform[: n * FRAME] for waveform, n in zip(waveforms, lengths, strict=True)]


def _exact() -> AbstractContextManager[None]:
    """Convolutions in full float32, which GPUs otherwise round to TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


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

        Raises SpiritLMError: no such speaker or expression, or a chunk without frames.
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

        Raises SpiritLMError: as ``Vocoder.decode``; or pitch or style are not one for each HuBERT unit.
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
    return {name: np.concatenate([one[name], stream]) for name, stream in other.items()} if one else other
