"""Transcribed utterances as tokens, picked out of the sequences table."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc

from spiritlm_core.evaluate.clips import rank
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.distances import normalise

_COLUMNS = (
    "utterance_id",
    "split",
    "text",
    "text_ids",
    "speech_ids",
    "speech_only",
    "duration",
    "language",
    "reject_stage",
)


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Utterance:
    """One transcribed utterance as tokens.

    Attributes:
        key: Its utterance_id.
        text: Transcript.
        text_ids: int64[N] tokens of the transcript, no marker.
        speech_ids: int64[M] tokens of the speech, no marker.
        duration: Seconds.
        language: Of what is said, or None where nobody says it.
    """

    key: str
    text: str
    text_ids: np.ndarray
    speech_ids: np.ndarray
    duration: float
    language: str | None = None

    @cached_property
    def words(self) -> str:
        """The transcript, normalised."""
        return normalise(self.text)

    @property
    def tokens(self) -> int:
        """Length in tokens with both markers."""
        return len(self.text_ids) + len(self.speech_ids) + 2


def utterances(sequences: TableView, split: str) -> Iterator[Utterance]:
    """The utterances of one split that have both text and speech."""
    for shard in sequences.shards(_COLUMNS):
        for row in shard.to_pylist():
            if row["reject_stage"] is None and row["split"] == split and row["text_ids"] and not row["speech_only"]:
                yield _utterance(row)


def _utterance(row: Mapping[str, Any]) -> Utterance:
    text, speech = (np.array(row[name] or [], dtype=np.int64) for name in ("text_ids", "speech_ids"))
    return Utterance(row["utterance_id"], row["text"] or "", text, speech, row["duration"] or 0.0, row["language"])


def pick(
    sequences: TableView, split: str, count: int, seed: int, keep: Callable[[Utterance], bool] = lambda _: True
) -> list[Utterance]:
    """At most `count` utterances that `keep` likes, drawn by :func:`rank` and in its order."""
    liked = (utterance for utterance in utterances(sequences, split) if keep(utterance))
    return heapq.nsmallest(count, liked, key=lambda utterance: rank(seed, utterance.key))


def train_words(sequences: TableView) -> frozenset[str]:
    """The words of all train transcripts, normalised."""
    words: set[str] = set()
    for shard in sequences.shards(("split", "text", "reject_stage")):
        good = shard.filter(pc.and_(pc.is_null(shard["reject_stage"]), pc.equal(shard["split"], "train")))
        for text in pc.unique(good["text"].drop_null()).to_pylist():
            words.update(normalise(text).split())
    return frozenset(words)


def labels_of(audio: TableView, split: str, column: str = "label") -> dict[str, str]:
    """utterance_id → label (or another column) of the good rows of one split that have one."""
    labels: dict[str, str] = {}
    for shard in audio.shards(("utterance_id", "split", column, "reject_stage")):
        good = pc.and_(pc.is_null(shard["reject_stage"]), pc.equal(shard["split"], split))
        rows = shard.filter(pc.and_(good, pc.is_valid(shard[column])))
        labels.update(zip(rows["utterance_id"].to_pylist(), rows[column].to_pylist(), strict=True))
    return labels


def recorded(audio: TableView, split: str) -> set[str]:
    """utterance_ids of the good rows of one split that people said."""
    return {key for key, origin in labels_of(audio, split, "origin").items() if origin == "recorded"}


def count(sequences: TableView, split: str) -> int:
    """Number of :func:`utterances` of a split, without reading their tokens."""
    total = 0
    for shard in sequences.shards(("split", "speech_only", "reject_stage")):
        good = pc.and_(pc.is_null(shard["reject_stage"]), pc.equal(shard["split"], split))
        with_text = pc.invert(pc.fill_null(shard["speech_only"], fill_value=False))
        total += pc.sum(pc.fill_null(pc.and_(good, with_text), fill_value=False)).as_py() or 0
    return int(total)
