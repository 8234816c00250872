"""Recordings and their units end to end on one tape, from which training takes crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.view import TableView
from spiritlm_core.units.config import FRAME
from spiritlm_core.units.training import Clip, train_clips
from spiritlm_core.vocoder.config import VocoderConfig
from spiritlm_core.vocoder.fit_config import VocoderStageConfig
from spiritlm_core.vocoder.frames import Streams, frames_of, streams_of

UNIT_COLUMNS = ("utterance_id", "hubert", "pitch", "style", "reject_stage")
UNKNOWN = "unknown"
"""The voice of recordings that name no speaker."""

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Tape:
    """Speech to learn from.

    Attributes:
        samples: int16[640 F] at 16 kHz.
        streams: one entry per frame for each embedding of the vocoder, int32[F].
        runs: runs of equal HuBERT units, int32[N].
        lasting: frames of each run, int32[N].
    """

    samples: NDArray[np.int16]
    streams: Mapping[str, Ids]
    runs: Ids
    lasting: Ids

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.samples) // FRAME

    def crop(self, start: int, frames: int) -> tuple[NDArray[np.float32], dict[str, Ids]]:
        """The waveform float32[640 frames] from frame `start`, and its streams int32[frames]."""
        samples = self.samples[start * FRAME : (start + frames) * FRAME].astype(np.float32) / np.float32(32768)
        return samples, {name: stream[start : start + frames] for name, stream in self.streams.items()}


def read_tape(audio: TableView, units: TableView, config: VocoderStageConfig) -> tuple[Tape, VocoderConfig]:
    """Train utterances of the tables `audio` and `units`, and the vocoder that fits them.

    Raises:
        SpiritLMError: there is no train speech with units, or less than a crop of it.
    """
    found = _units(units)
    clips = [clip for clip in train_clips(audio, config.fit.max_minutes, config.fit.seed) if clip.utterance_id in found]
    if not clips:
        raise SpiritLMError("no train utterance has units: a vocoder cannot be fitted; check the sources")
    architecture = config.fit.architecture(config.sizes, *_speakers(clips, config))
    frames = [_frames(clip, found[clip.utterance_id], architecture) for clip in clips]
    tape = _joined(clips, frames)
    if tape.frames < config.fit.crop_frames:
        raise SpiritLMError(
            f"there are {tape.frames} frames of train speech, less than vocoder.crop_frames {config.fit.crop_frames}: "
            "give more recordings, or lower it"
        )
    return tape, architecture


def _units(units: TableView) -> dict[str, SimpleNamespace]:
    found: dict[str, SimpleNamespace] = {}
    for shard in units.shards(UNIT_COLUMNS):
        for row in shard.filter(pc.is_null(shard["reject_stage"])).to_pylist():
            if row["hubert"]:
                found[row["utterance_id"]] = SimpleNamespace(
                    **{name: row[name] for name in ("hubert", "pitch", "style")}
                )
    return found


def _speakers(clips: list[Clip], config: VocoderStageConfig) -> tuple[tuple[str, ...], int]:
    """Names in alphabetical order, and the index of the one with most speech."""
    if not config.fit.speakers:
        return (), 0
    seconds: Counter[str] = Counter()
    for clip in clips:
        seconds[clip.speaker or UNKNOWN] += len(clip.waveform)
    names = sorted(seconds)
    return tuple(names), names.index(max(names, key=lambda name: seconds[name]))


def _frames(clip: Clip, units: SimpleNamespace, config: VocoderConfig) -> Streams:
    frames = frames_of(streams_of(units, config), config, None, collapse=False)
    if config.speakers:
        speaker = config.speaker_names.index(clip.speaker or UNKNOWN)
        frames["speaker"] = np.full(len(frames["units"]), speaker)
    return frames


def _joined(clips: list[Clip], frames: list[Streams]) -> Tape:
    streams = {name: np.concatenate([one[name] for one in frames]).astype(np.int32) for name in frames[0]}
    samples = np.concatenate(list(_samples(clips, [len(one["units"]) for one in frames])))
    units = streams["units"]
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    lasting = np.diff(np.append(starts, len(units))).astype(np.int32)
    return Tape(samples, streams, units[starts], lasting)


def _samples(clips: list[Clip], counts: list[int]) -> Iterator[NDArray[np.int16]]:
    """Waveforms as 16-bit samples, as long as their frames."""
    for clip, count in zip(clips, counts, strict=True):
        waveform = clip.waveform[: count * FRAME]
        waveform = np.pad(waveform, (0, count * FRAME - len(waveform)))
        yield np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.int16)
