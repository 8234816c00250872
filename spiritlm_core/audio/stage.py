"""Ingest: recordings to segments of 16 kHz mono speech, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from spiritlm_core.audio.codec import encode_flac, store_mono, stored
from spiritlm_core.audio.config import AudioConfig, LimitsConfig, SyntheticAudioConfig
from spiritlm_core.audio.samples import Samples, StoredSamples, blocks
from spiritlm_core.audio.vad import Region, loud_region, segments, speech_probabilities, speech_regions
from spiritlm_core.audio.voices.sound import Time
from spiritlm_core.audio.voices.spoken import speak
from spiritlm_core.errors import Rejection, SourceError, attempt, is_machine_error
from spiritlm_core.intake.opening import open_uri
from spiritlm_core.intake.speak.transcripts import plain
from spiritlm_core.intake.speak.utterance import SCHEME
from spiritlm_core.intake.statcache import sha256_of
from spiritlm_core.lake.schema import REJECT, SAMPLE_RATE, SYNTHETIC, Row, rejected, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.split import draw_split

TIME = pa.struct([pa.field("start", pa.float64()), pa.field("end", pa.float64())])  # seconds in the segment
AUDIO = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("start", pa.float64()),  # seconds in the recording
        pa.field("end", pa.float64()),
        pa.field("duration", pa.float64()),  # seconds
        pa.field("speaker", pa.string()),
        pa.field("language", pa.string()),
        pa.field("split", pa.string()),  # "train" or "held_out"
        pa.field("label", pa.string()),  # class of the recording, if known
        pa.field("origin", pa.string()),  # "recorded" or "synthetic"
        pa.field("text", pa.string()),  # transcript of this segment, if known
        pa.field("recording_text", pa.string()),  # of the whole recording, on its first segment, if it has several
        pa.field("word_times", pa.list_(TIME)),  # of the words of `text`, parted at white space, where they are known
        pa.field("audio", pa.binary()),  # FLAC, 16 kHz mono, 16 bit
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string()),
        *REJECT,
    ]
)

Heard = tuple[StoredSamples, Sequence[Time | None]]
"""int16[T] of a recording, and when each word of its transcript is said, if that is known."""

_FULL_SCALE = 32_700  # of 32768: clipped samples lose a little in resampling
_COPIED = ("recording_id", "speaker", "language", "label", "origin", "source_uri")


class AudioStage(TableStage):
    """``recordings`` (rows of :data:`spiritlm_core.intake.item.RECORDINGS`) to ``audio``.

    A good item gives one row per segment, a bad one gives one rejected row. The files are read where they
    are, and must still hold what was there when they were listed.
    """

    name: ClassVar[str] = "audio"
    about: ClassVar[str] = "recordings, checked, cut at pauses, 16 kHz"
    version: ClassVar[int] = 4
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("recordings"),)
    aligned: ClassVar[bool] = False
    schema: ClassVar[pa.Schema] = AUDIO

    config: AudioConfig

    def __init__(self, config: AudioConfig, models: Mapping[str, Path]) -> None:
        """Needs no models of the lake: voice activity comes with a package."""
        super().__init__(config, models)
        self._last: tuple[tuple[object, ...], Heard] | None = None

    def process(self, *tables: pa.Table) -> pa.Table:
        """Rows of `AUDIO`, in the order of the recordings.

        Raises SourceError: a file changed or vanished since it was listed.
        """
        (recordings,) = tables
        rows = [row for item in self.counted(recordings.to_pylist()) for row in self._rows(item)]
        self._last = None
        return table_of(rows, AUDIO)

    def _rows(self, item: Row) -> list[Row]:
        base = {name: item[name] for name in _COPIED}
        base |= {"source_sha256": item["sha256"], "split": split_of(item, self.config)}
        made = str(item["error"])[:500] if item["error"] else attempt(lambda: self._segments(item, base))
        whole = base | {"utterance_id": item["recording_id"]}
        return made if isinstance(made, list) else [rejected(whole, self.name, made)]

    def _segments(self, item: Row, base: Row) -> list[Row]:
        samples, words = self._heard(item)
        waveform = _stretch(samples, item)
        check_level(waveform, self.config)
        regions = find_segments(waveform, self.config, transcribed=item["text"] is not None)
        rows = [base | segment_row(waveform, segment, str(item["recording_id"])) for segment in regions]
        rows[0]["text" if len(rows) == 1 else "recording_text"] = item["text"]
        if len(rows) == 1 and words:
            rows[0]["word_times"] = [word and _within(word, regions[0]) for word in words]
        return rows

    def _heard(self, item: Row) -> Heard:
        """What is in the item's file; kept for the next item, which often is another stretch of it."""
        wanted = (item["source_uri"], item["sha256"], item["channel"])
        if self._last is None or self._last[0] != wanted:
            self._last = None  # two long recordings need not be in memory at once
            self._last = (wanted, _read(item, self.config.limits))
        return self._last[1]


def _within(word: Time, segment: Region) -> Row:
    """When a word is said, in seconds of the segment."""
    start, end = (min(max(second, segment.start), segment.end) - segment.start for second in word)
    return {"start": start, "end": end}


def find_segments(waveform: Samples, config: AudioConfig, *, transcribed: bool) -> list[Region]:
    """Segments of int16[T] in seconds.

    A transcript is better evidence of speech than a detector: with one, and none found, the loud part is taken. Raises
    Rejection: no speech found.
    """
    probabilities = speech_probabilities(waveform)
    regions = speech_regions(probabilities, config.vad)
    if not regions and transcribed and len(waveform) <= config.max_seconds * SAMPLE_RATE:
        regions = [loud] if (loud := loud_region(waveform)) else []
    if not regions:
        raise Rejection("no speech found")
    return segments(regions, probabilities, len(waveform) / SAMPLE_RATE, config)


def segment_row(waveform: Samples, segment: Region, recording_id: str) -> Row:
    """The columns that describe one segment of a recording."""
    first, last = round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE)
    start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
    return {
        "utterance_id": f"{recording_id}-{round(start * 1000):08d}-{round(end * 1000):08d}",
        "start": start,
        "end": end,
        "duration": end - start,
        "audio": encode_flac(waveform[first:last]),
    }


def check_level(waveform: Samples, config: AudioConfig) -> None:
    """Reject int16[T] that is too short, silent or badly clipped."""
    seconds = len(waveform) / SAMPLE_RATE
    if seconds < config.min_seconds:
        raise Rejection(f"too short: {seconds:.3f} s, at least {config.min_seconds:g} s are needed")
    parts = [(part.min(), part.max(), part.sum(dtype=np.int64), _clipped(part)) for part in blocks(waveform)]
    lows, highs, sums, clipped = zip(*parts, strict=True)
    middle, share = sum(sums) / len(waveform), sum(clipped) / len(waveform)
    peak = 20 * np.log10(max(middle - min(lows), max(highs) - middle, 0.5) / 32768)
    if peak < config.min_peak_dbfs:
        raise Rejection(f"silent: it peaks at {peak:.0f} dBFS, at least {config.min_peak_dbfs:g} are needed")
    if share > config.max_clipped_share:
        raise Rejection(f"clipped: {share:.0%} of its samples are at full scale")


def _clipped(part: np.ndarray) -> int:
    return int(np.count_nonzero((part >= _FULL_SCALE) | (part <= -_FULL_SCALE)))


def split_of(item: Row, config: AudioConfig) -> str:
    """Either "train" or "held_out", drawn from who or what the item is, so that other items never change it.

    Synthetic speech is not held out where there is any other: a model is judged by what people said. Else the same
    sentence is on the same side, whoever says it.
    """
    if item["origin"] == SYNTHETIC and not isinstance(config, SyntheticAudioConfig):
        return "train"
    who = item["recording_id"]
    if item["origin"] == SYNTHETIC and item["text"]:
        who = " ".join(plain(str(item["text"]).split())) or who
    if config.held_out_by == "speaker" and item["speaker"]:
        who = item["speaker"]
    return draw_split(who, config.split_salt, config.held_out_share)


def _stretch(waveform: StoredSamples, item: Row) -> StoredSamples:
    """The part between the item's `start` and `end`, in seconds of the file."""
    start, end = item["start"], item["end"]
    length = len(waveform) / SAMPLE_RATE
    if isinstance(start, float) and start >= length:
        raise Rejection(f"the stretch starts at {start:g} s, the recording ends at {length:.2f} s")
    if isinstance(end, float) and end > length + 0.1:
        raise Rejection(f"the stretch ends at {end:g} s, the recording at {length:.2f} s")
    first = round(start * SAMPLE_RATE) if isinstance(start, float) else 0
    last = round(end * SAMPLE_RATE) if isinstance(end, float) else len(waveform)
    return waveform.between(first, last)


def _read(item: Row, limits: LimitsConfig) -> Heard:
    """Decode the file, making sure that it is the one that was listed: its hash is part of the shard's key."""
    uri = str(item["source_uri"])
    if uri.startswith(SCHEME):
        waveform, words = speak(uri)
        return stored(waveform), words
    try:
        if sha256_of(uri) != item["sha256"]:
            raise SourceError(f"{uri} changed while it was read: run again")
        with open_uri(uri) as file:
            return store_mono(file, uri, item["channel"], limits), ()  # type: ignore[arg-type]
    except OSError as error:
        if is_machine_error(error):
            raise
        raise SourceError(
            f"{uri} could be read when it was listed, not now or not here ({error}): run again, with the "
            "folder at the same place on every machine"
        ) from error
