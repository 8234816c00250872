"""Formats of other programs. Each is a function that opens one split in a folder and gives what writes a segment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.export.segments import Segment
from spiritlm_core.files import write_json
from spiritlm_core.lake.schema import SAMPLE_RATE

PER_FILE = 1000  # segments of one Parquet file, Shar shard or tar
Write = Callable[[Segment], None]


@dataclass(frozen=True)
class Place:
    """Where one split goes: the folder of the whole export, the name of the split, and the columns of a segment."""

    folder: Path
    split: str
    schema: pa.Schema
    per_file: int = PER_FILE


@contextmanager
def hugging_face(place: Place) -> Iterator[Write]:
    """Parquet with the features of `datasets` in its schema: `audio` is an `Audio`."""
    from datasets import Audio, Features

    columns = pa.schema([column for column in place.schema if column.name != "audio"])
    schema = Features({**Features.from_arrow_schema(columns), "audio": Audio(SAMPLE_RATE)}).arrow_schema
    held: list[Segment] = []
    files = [0]

    def put() -> None:
        target = place.folder / "data" / f"{place.split}-{files[0]:05d}.parquet"
        target.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(held, schema), target, row_group_size=100)
        files[0] += 1
        held.clear()

    def write(segment: Segment) -> None:
        held.append({**segment, "audio": {"bytes": segment["audio"], "path": f"{segment['utterance_id']}.flac"}})
        if len(held) == place.per_file:
            put()

    yield write
    if held:
        put()


@contextmanager
def shar(place: Place) -> Iterator[Write]:
    """Lhotse Shar: cuts in JSON lines, their audio in tars."""
    from lhotse.shar import SharWriter

    (place.folder / place.split).mkdir()
    with SharWriter(place.folder / place.split, fields={"recording": "flac"}, shard_size=place.per_file) as writer:
        yield lambda segment: writer.write(_cut(segment, "memory", segment["audio"]))


@contextmanager
def lhotse(place: Place) -> Iterator[Write]:
    """Lhotse cuts in one manifest, which names FLAC files by their paths in the folder."""
    from lhotse import CutSet

    with CutSet.open_writer(place.folder / f"cuts.{place.split}.jsonl.gz") as cuts:

        def write(segment: Segment) -> None:
            file = _audio_file(place, segment)
            cuts.write(_cut(segment, "file", file.relative_to(place.folder).as_posix()))

        yield write


def _cut(segment: Segment, kind: str, source: Any) -> Any:
    """A `lhotse.MonoCut` with one supervision, whose alignment has the words; what lhotse has no place for is custom.

    `kind` and `source` say where the audio is: ("file", a path) or ("memory", the bytes).
    """
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    name, seconds = segment["utterance_id"], segment["duration"]
    samples = round(seconds * SAMPLE_RATE)
    recording = Recording(name, [AudioSource(kind, [0], source)], SAMPLE_RATE, samples, samples / SAMPLE_RATE)
    words = [
        AlignmentItem(word["word"], word["start"], word["end"] - word["start"], word["score"])
        for word in segment.get("words") or ()
    ]
    own = {"utterance_id", "duration", "text", "language", "speaker", "words", "audio"}
    spoken = SupervisionSegment(
        name,
        name,
        0.0,
        samples / SAMPLE_RATE,
        text=segment["text"],
        language=segment["language"],
        speaker=segment["speaker"],
        alignment={"word": words},
    )
    custom = {key: value for key, value in segment.items() if key not in own}
    return MonoCut(name, 0.0, samples / SAMPLE_RATE, 0, [spoken], recording=recording, custom=custom)


@contextmanager
def webdataset(place: Place) -> Iterator[Write]:
    """Tars of ``ID.flac``, ``ID.txt`` and ``ID.json``, where the last has all columns but the audio."""
    from webdataset import ShardWriter

    pattern = str(place.folder / f"{place.split}-%05d.tar")
    with ShardWriter(pattern, maxcount=place.per_file, verbose=0, mtime=0.0) as tars:

        def write(segment: Segment) -> None:
            about = {key: value for key, value in segment.items() if key != "audio"}
            name, text = segment["utterance_id"], segment["text"] or ""
            tars.write({"__key__": name, "flac": segment["audio"], "txt": text, "json": about})

        yield write


@contextmanager
def _beside(suffix: str, put: Callable[[Segment, Path], object], place: Place) -> Iterator[Write]:
    """FLAC files, and beside each a file of its words with this suffix."""

    def write(segment: Segment) -> None:
        put(segment, _audio_file(place, segment).with_suffix(suffix))

    yield write


def _audio_file(place: Place, segment: Segment) -> Path:
    file = place.folder / "audio" / place.split / f"{segment['utterance_id']}.flac"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(segment["audio"])
    return file


def textgrid(segment: Segment, file: Path) -> None:
    """A TextGrid of Praat with one tier, ``words``; a word without length, which it cannot hold, gets 0.1 ms."""
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.data_classes.textgrid import Textgrid

    entries, latest = [], 0.0
    for word in segment.get("words") or ():
        start = max(word["start"], latest)
        latest = max(word["end"], start + 1e-4)
        entries.append((start, latest, word["word"]))
    grid = Textgrid(0.0, max(segment["duration"], latest))
    grid.addTier(IntervalTier("words", entries, grid.minTimestamp, grid.maxTimestamp))
    grid.save(str(file), format="long_textgrid", includeBlankSpaces=True)


@contextmanager
def ctm(place: Place) -> Iterator[Write]:
    """FLAC files, and one CTM (NIST's table of words): segment, channel, start, duration, word, confidence."""
    with (place.folder / f"{place.split}.ctm").open("w", encoding="utf-8") as table:

        def write(segment: Segment) -> None:
            _audio_file(place, segment)
            table.write(ctm_lines(segment))

        yield write


def ctm_lines(segment: Segment) -> str:
    """A line per word: segment, channel, start and duration in seconds, word, and confidence where there is one."""
    lines = []
    for word in segment.get("words") or ():
        times = f"{word['start']:.3f} {word['end'] - word['start']:.3f}"
        score = "" if word["score"] is None else f" {word['score']:.3f}"
        lines.append(f"{segment['utterance_id']} 0 {times} {word['word']}{score}\n")
    return "".join(lines)


def subtitles(kind: Literal["srt", "vtt"], cues: Iterable[Mapping[str, Any]]) -> str:
    """SRT, or WebVTT, which has a head and a decimal point: a cue for each ``word`` from ``start`` to ``end``."""
    head, comma = ("WEBVTT\n\n", ".") if kind == "vtt" else ("", ",")
    written = [
        f"{number}\n{_clock(cue['start'], comma)} --> {_clock(cue['end'], comma)}\n{cue['word']}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return head + "\n".join(written)


def _clock(seconds: float, comma: str) -> str:
    """Seconds as ``00:01:02,003``."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{comma}{rest:03d}"


def _subtitle_file(kind: Literal["srt", "vtt"], segment: Segment, file: Path) -> None:
    file.write_text(subtitles(kind, segment.get("words") or ()), encoding="utf-8")


WORD_FILES: dict[str, tuple[str, Callable[[Segment, Path], object]]] = {
    "srt": (".srt", partial(_subtitle_file, "srt")),
    "vtt": (".vtt", partial(_subtitle_file, "vtt")),
    "textgrid": (".TextGrid", textgrid),
    "ctm": (".ctm", lambda segment, file: file.write_text(ctm_lines(segment), encoding="utf-8")),
    "json": (".json", lambda segment, file: write_json(file, segment)),
}
"""Formats of the words of one recording: the ending of their files, and what writes one."""

FORMATS: dict[str, Callable[[Place], AbstractContextManager[Write]]] = {
    "hf": hugging_face,
    "shar": shar,
    "lhotse": lhotse,
    "webdataset": webdataset,
    "textgrid": partial(_beside, *WORD_FILES["textgrid"]),
    "ctm": ctm,
    "srt": partial(_beside, *WORD_FILES["srt"]),
    "vtt": partial(_beside, *WORD_FILES["vtt"]),
}
