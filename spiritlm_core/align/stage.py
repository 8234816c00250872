"""The stage `words`: the words of every segment and when they were said."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa

from spiritlm_core.align.config import WordsConfig
from spiritlm_core.align.interpolate import Span, fill, place
from spiritlm_core.align.teacher import row_language
from spiritlm_core.align.whisperx import Aligner, Heard, Transcriber
from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.errors import Rejection, attempt
from spiritlm_core.lake.schema import REJECT, Row, is_rejected, passed_on, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.tokens.words import Word, words_of

WORD = pa.struct(
    [
        pa.field("word", pa.string()),
        pa.field("start", pa.float64()),  # seconds in the segment
        pa.field("end", pa.float64()),
        pa.field("score", pa.float32()),  # aligner's confidence, null where interpolated
        pa.field("interpolated", pa.bool_()),
    ]
)

WORDS = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("words", pa.list_(WORD)),
        pa.field("text", pa.string()),
        pa.field("text_origin", pa.string()),  # "given" or "asr"
        *REJECT,
    ]
)

_COLUMNS = (
    "utterance_id",
    "recording_id",
    "start",
    "duration",
    "language",
    "text",
    "recording_text",
    "word_times",
    "audio",
)


class WordsStage(TableStage):
    """Aligns given transcripts, transcribes the rest, one output row per audio row.

    Models: ``"aligner"``, a fitted aligner or a ``Wav2Vec2ForCTC`` folder, and, to transcribe, ``"asr"``, a
    faster-whisper folder.
    """

    config: WordsConfig
    name: ClassVar[str] = "words"
    about: ClassVar[str] = "words and their times (WhisperX)"
    version: ClassVar[int] = 4
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("audio", (*_COLUMNS, "reject_stage", "reject_reason")),)
    schema: ClassVar[pa.Schema] = WORDS

    def __init__(self, config: WordsConfig, models: Mapping[str, Path]) -> None:
        super().__init__(config, models)
        self._aligners: dict[str, Aligner | None] = {}

    def setup(self) -> None:
        """Load the models, and keep torch to one thread: workers run side by side."""
        import torch

        torch.set_num_threads(1)
        _ = self._transcriber

    @cached_property
    def _transcriber(self) -> Transcriber | None:
        wanted = "asr" in self.models and self.config.mode != "given"
        return Transcriber(self.models["asr"]) if wanted else None

    def _aligner(self, language: str) -> Aligner | None:
        if language not in self._aligners:
            self._aligners[language] = Aligner.load(self.models["aligner"], language)
        return self._aligners[language]

    def process(self, *tables: pa.Table) -> pa.Table:
        """Rows of `WORDS`, in the order of the audio rows."""
        (audio,) = tables
        rows = audio.to_pylist()
        placed = self._placed(rows)
        return table_of([self._row(row, placed.get(index)) for index, row in enumerate(self.counted(rows))], WORDS)

    def _row(self, row: Row, placed: list[Word] | None) -> Row:
        base = passed_on(row)
        return base if is_rejected(row) else self.tried(base, lambda: self._words(row, placed))

    def _words(self, row: Row, placed: list[Word] | None) -> Row:
        language, waveform = row_language(row), _waveform(row)
        words, origin = self._text(row, placed, waveform)
        if origin is None:
            return {"words": []}
        if not words:
            raise Rejection("no words in the transcript" if placed is None else "no words of the transcript fall here")
        if origin == "given" and row["word_times"] is not None:
            times = _told(row, words)
        else:
            times = self._times(waveform, words, language)
        return {
            "words": _entries(words, times),
            "text": " ".join(word.written for word in words),
            "text_origin": origin,
        }

    def words_in(self, waveform: np.ndarray, text: str, language: str) -> list[dict[str, Any]]:
        """The words of `text`, said in float32[T] at 16 kHz, as entries of the column ``words``.

        Raises Rejection: they do not fit the audio.
        """
        words = words_of(text, language)
        return _entries(words, self._times(waveform, words, language))

    def _text(self, row: Row, placed: list[Word] | None, waveform: np.ndarray) -> tuple[list[Word], str | None]:
        """The words of a row and where they come from; origin None if nobody can say what they are."""
        language = row_language(row)
        if self.config.mode != "transcribe":
            if placed is not None:
                return placed, "given"
            if row["text"] is not None:
                return words_of(str(row["text"]), language), "given"
        if self._transcriber is not None:
            return self._recognised(waveform, language), "asr"
        if self.config.untranscribed == "reject":
            raise Rejection("no transcript, and no speech recogniser was given (align.asr)")
        return [], None

    def _recognised(self, waveform: np.ndarray, language: str) -> list[Word]:
        assert self._transcriber is not None  # noqa: S101 - for mypy; the caller has looked
        text, confidence = self._transcriber.transcribe(waveform, language)
        if confidence < self.config.min_confidence:
            raise Rejection(f"the recogniser is unsure: mean log probability {confidence:.2f}")
        if not (words := words_of(text, language)):
            raise Rejection("the recogniser heard no words")
        return words

    def _times(self, waveform: np.ndarray, words: list[Word], language: str) -> list[Span]:
        lengths = [sum(map(len, word.spoken)) for word in words]
        aligner = self._aligner(language)
        spans: list[Span | None] = [None] * len(words)
        if aligner is not None:
            heard = aligner.hear(waveform)
            spans = self._spans(aligner, heard, words)
        return fill(spans, lengths, len(waveform) / 16_000)

    def _spans(self, aligner: Aligner, heard: Heard, words: list[Word]) -> list[Span | None]:
        spoken = [part for word in words for part in word.spoken]
        misfit = heard.misfit(spoken)
        if not misfit <= self.config.max_misfit:
            raise Rejection(f"the transcript does not fit the audio: {misfit:.1f} nats per character off")
        parts = iter(aligner.align(heard, spoken))
        return [_joined([next(parts) for _ in word.spoken]) for word in words]

    def _placed(self, rows: Sequence[Row]) -> dict[int, list[Word]]:
        """The words of every row whose recording has one transcript for several segments."""
        placed: dict[int, list[Word]] = {}
        if self.config.mode == "transcribe":
            return placed
        for first in [row for row in rows if row["recording_text"] is not None]:
            members = [
                index
                for index, row in enumerate(rows)
                if row["recording_id"] == first["recording_id"] and not is_rejected(row)
            ]
            members.sort(key=lambda index: (rows[index]["start"], index))
            words = words_of(str(first["recording_text"]), row_language(first))
            readings = [self._reading(rows[index]) for index in members]
            durations = [float(rows[index]["duration"]) for index in members]  # type: ignore[arg-type]
            placed.update(zip(members, place(words, readings, durations), strict=True))
        return placed

    def _reading(self, row: Row) -> str:
        """What is heard in a segment; nothing if it cannot be read (its row will say why)."""
        heard = attempt(lambda: self._heard_text(row))
        return "" if isinstance(heard, Exception) else heard

    def _heard_text(self, row: Row) -> str:
        """The reading of a segment; nothing without a model, so that time alone decides."""
        language, waveform = row_language(row), _waveform(row)
        if self._transcriber is not None:
            text, _ = self._transcriber.transcribe(waveform, language)
            return "".join(part for word in words_of(text, language) for part in word.spoken)
        aligner = self._aligner(language)
        return aligner.hear(waveform).reading() if aligner else ""


def _entries(words: Sequence[Word], times: Sequence[Span]) -> list[dict[str, Any]]:
    return [
        {"word": w.written, "start": t.start, "end": t.end, "score": t.score, "interpolated": t.score is None}
        for w, t in zip(words, times, strict=True)
    ]


def _waveform(row: Row) -> np.ndarray:
    return decode_flac(row["audio"])  # type: ignore[arg-type]


def _told(row: Row, words: list[Word]) -> list[Span]:
    """The times that came with the audio, which are exact; of words without one, as of those that are not aligned."""
    tokens = unicodedata.normalize("NFC", str(row["text"])).split()
    given = zip(tokens, cast("list[Any]", row["word_times"]), strict=False)
    spans: list[Span | None] = []
    for word in words:  # marks of noise, which are among the given ones, are none
        time = next((time for token, time in given if token == word.written), None)
        spans.append(Span(time["start"], time["end"], 1.0) if time else None)
    return fill(spans, [sum(map(len, word.spoken)) for word in words], float(cast("float", row["duration"])))


def _joined(parts: Sequence[Span | None]) -> Span | None:
    """The span of a written word from those of its spoken parts: ``21`` is "twenty" and "one"."""
    known = [part for part in parts if part is not None]
    if 2 * len(known) <= len(parts):
        return None
    return Span(known[0].start, known[-1].end, float(np.mean([part.score for part in known])))
