"""Which utterances of a corpus an aligner is fitted on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from spiritlm_core.lake.schema import Row, is_rejected
from spiritlm_core.lake.view import TableView
from spiritlm_core.language import main_code
from spiritlm_core.tokens.words import words_of

_SMALL = ("utterance_id", "split", "language", "duration", "text", "reject_stage")
_FASTEST = 30.0  # characters a second; what is faster than that is not a transcript of the audio


@dataclass(frozen=True)
class Utterance:
    """A piece of speech and what is said in it: lower-case words, none if nobody knows them; float32[T], 16 kHz."""

    key: str
    words: tuple[str, ...]
    waveform: np.ndarray


def row_language(row: Row) -> str:
    """The language of a row of the audio table."""
    return main_code(cast("str | None", row["language"]))


def main_language(audio: TableView) -> str:
    """The language of most of the train split, by duration; the first by name if several have as much."""
    seconds: Counter[str] = Counter()
    for row in _train_rows(audio):
        seconds[row_language(row)] += round(1000 * float(row["duration"] or 0.0))  # type: ignore[arg-type]
    return min(seconds, key=lambda language: (-seconds[language], language), default="en")


def choose(audio: TableView, language: str, *, minutes: float, longest: float, transcribed: bool) -> dict[str, float]:
    """The durations of up to `minutes` of train utterances, by key: a sample that depends on the rows alone.

    Rows longer than `longest` seconds are left out. `transcribed` rows have a transcript with words, the others none.
    """
    fitting = {
        str(row["utterance_id"]): float(row["duration"])  # type: ignore[arg-type]
        for row in _train_rows(audio)
        if row_language(row) == language and 0 < (row["duration"] or 0.0) <= longest  # type: ignore[operator]
        if (_plausible(row, language) if transcribed else row["text"] is None)
    }
    chosen, left = {}, minutes * 60
    for key in sorted(fitting, key=lambda key: hashlib.sha256(key.encode()).digest()):
        if fitting[key] <= left:
            chosen[key] = fitting[key]
            left -= fitting[key]
    return chosen


def load(audio: TableView, keys: Iterable[str], language: str) -> list[Utterance]:
    """The utterances called `keys`, sorted by key, with their audio."""
    from spiritlm_core.audio.codec import decode_flac

    wanted, clips = set(keys), []
    for shard in audio.shards(("utterance_id", "text", "audio")):
        mask = np.array([key in wanted for key in shard["utterance_id"].to_pylist()], dtype=bool)
        clips += [
            Utterance(row["utterance_id"], spoken(row["text"], language), decode_flac(row["audio"]))
            for row in shard.filter(mask).to_pylist()
        ]
    return sorted(clips, key=lambda utterance: utterance.key)


def spoken(text: str | None, language: str) -> tuple[str, ...]:
    """The spoken words of a transcript."""
    return tuple(part for word in words_of(text or "", language) for part in word.spoken)


def seconds_of(utterances: Sequence[Utterance]) -> float:
    """Their total duration."""
    return sum(len(utterance.waveform) for utterance in utterances) / 16_000


def _train_rows(audio: TableView) -> Iterator[Row]:
    for shard in audio.shards(_SMALL):
        yield from (row for row in shard.to_pylist() if row["split"] == "train" and not is_rejected(row))


def _plausible(row: Row, language: str) -> bool:
    if row["text"] is None:
        return False
    letters = sum(map(len, spoken(str(row["text"]), language)))
    return 0 < letters <= _FASTEST * float(row["duration"])  # type: ignore[arg-type]
