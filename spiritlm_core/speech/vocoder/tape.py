"""Recordings and their units end to end on one tape, from which training takes crops."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import to_int16
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.fit.clips import Clip, train_clips
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.copies import Change, shifts
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.speech.vocoder.fit_config import VocoderStageConfig
from spiritlm_core.speech.vocoder.frames import Streams as FrameStreams
from spiritlm_core.speech.vocoder.frames import frames_of, streams_of
from spiritlm_core.tokens.speech import Streams

UNIT_COLUMNS = ("utterance_id", "hubert", "pitch", "style", "reject_stage")
UNKNOWN = "unknown"  # the voice of recordings that name no speaker

_USUAL_STYLES = 3  # as many as the released code draws from

Ids = NDArray[np.int32]
Spoken: TypeAlias = tuple[Clip, Streams]
Encode = Callable[[list[NDArray[np.float32]]], list[NDArray[np.int16]]]  # HuBERT units int16[N] of waveforms float32[T]


@dataclass(frozen=True)
class Tape:
    """Speech to learn from."""

    samples: NDArray[np.int16]  # int16[640 F] at 16 kHz
    streams: Mapping[str, Ids]  # one entry per frame for each embedding of the vocoder, int32[F]
    runs: Ids  # runs of equal HuBERT units, int32[N]
    lasting: Ids  # frames of each run, int32[N]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.samples) // FRAME

    def crop(self, start: int, frames: int) -> tuple[NDArray[np.float32], dict[str, Ids]]:
        """The waveform float32[640 frames] from frame `start`, and its streams int32[frames]."""
        samples = self.samples[start * FRAME : (start + frames) * FRAME].astype(np.float32) / np.float32(32768)
        return samples, {name: stream[start : start + frames] for name, stream in self.streams.items()}


def read_tape(
    audio: TableView, units: TableView, config: VocoderStageConfig, encode: Encode | None = None
) -> tuple[Tape, VocoderConfig]:
    """Train utterances of the tables `audio` and `units`, and the vocoder that fits them.

    Args:
        audio: the table.
        units: the table.
        config: of the stage.
        encode: HuBERT units of waveforms. With it each recording comes ``fit.shifts`` times, a part of a frame later
            each time. The same sound then has other units (three quarters of them differ after 10 ms), which is more to
            learn from, and what the vocoder learns depends less on where a frame happens to start.

    Raises SpiritLMError: there is no train speech with units, or less than a crop of it.
    """
    streams = _units(units)
    clips = [clip for clip in train_clips(audio, config.fit.max_minutes, config.fit.seed) if clip.key in streams]
    if not clips:
        raise SpiritLMError("no train utterance has units: a vocoder cannot be fitted; check the sources")
    architecture = config.fit.architecture(config.sizes, *_speakers(clips, config))
    architecture = architecture.model_copy(update={"unit_frames": round(25 / config.rate)})
    spoken = [(clip, streams[clip.key]) for clip in clips]
    later = [_later(spoken, shift, encode) for shift in shifts(config.fit.shifts - 1)] if encode else []
    tape = _joined([(clip, _frames(clip, units, architecture)) for one in [spoken, *later] for clip, units in one])
    if tape.frames < config.fit.crop_frames:
        raise SpiritLMError(
            f"there are {tape.frames} frames of train speech, less than vocoder.crop_frames {config.fit.crop_frames}: "
            "give more recordings, or lower it"
        )
    return tape, architecture.model_copy(update={"usual_styles": _usual_styles(tape)})


def _units(units: TableView) -> dict[str, Streams]:
    rows = (row for shard in units.good(UNIT_COLUMNS) for row in shard.to_pylist() if row["hubert"])
    return {row["utterance_id"]: Streams(np.asarray(row["hubert"]), row["pitch"], row["style"]) for row in rows}


def _later(spoken: list[Spoken], shift: Change, encode: Encode) -> list[Spoken]:
    """Recordings without their first samples; pitch and style are too coarse to tell the difference."""
    clips = [replace(clip, waveform=clip.waveform[shift.start :]) for clip, _ in spoken]
    every = zip(clips, encode([clip.waveform for clip in clips]), (units for _, units in spoken), strict=True)
    return [(clip, replace(units, hubert=hubert)) for clip, hubert, units in every if len(hubert)]


def _speakers(clips: list[Clip], config: VocoderStageConfig) -> tuple[tuple[str, ...], int]:
    """Names in alphabetical order, and the index of the one with most speech."""
    if not config.fit.speakers:
        return (), 0
    seconds: Counter[str] = Counter()
    for clip in clips:
        seconds[clip.speaker or UNKNOWN] += len(clip.waveform)
    names = sorted(seconds)
    return tuple(names), names.index(max(names, key=lambda name: seconds[name]))


def _usual_styles(tape: Tape) -> tuple[int, ...]:
    """The most frequent style units."""
    counts = Counter(tape.streams["style"].tolist()) if "style" in tape.streams else Counter[int]()
    return tuple(sorted(counts, key=lambda style: (-counts[style], style))[:_USUAL_STYLES])


def _frames(clip: Clip, units: Streams, config: VocoderConfig) -> FrameStreams:
    frames = frames_of(streams_of(units, config), config, None, collapse=False)
    if config.speakers:
        speaker = config.speaker_names.index(clip.speaker or UNKNOWN)
        frames["speaker"] = np.full(len(frames["units"]), speaker)
    return frames


def _joined(spoken: list[tuple[Clip, FrameStreams]]) -> Tape:
    names = spoken[0][1].keys()
    streams = {name: np.concatenate([frames[name] for _, frames in spoken]).astype(np.int32) for name in names}
    samples = np.concatenate([_samples(clip, len(frames["units"])) for clip, frames in spoken])
    units = streams["units"]
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    lasting = np.diff(np.append(starts, len(units))).astype(np.int32)
    return Tape(samples, streams, units[starts], lasting)


def _samples(clip: Clip, count: int) -> NDArray[np.int16]:
    """The waveform as 16-bit samples, as long as `count` frames."""
    waveform = clip.waveform[: count * FRAME]
    return to_int16(np.pad(waveform, (0, count * FRAME - len(waveform))))
