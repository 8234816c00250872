"""The words of one recording and when each was said, for subtitles and for programs of phoneticians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from spiritlm_core.align.config import WordsConfig
from spiritlm_core.align.interpolate import Span
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.align.whisperx import Aligner, Heard
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.intake.draft import draft_of
from spiritlm_core.intake.files import local_uri, stat_file
from spiritlm_core.intake.recordings import list_items
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.schema import Row
from spiritlm_core.tokens.words import Word

Words = list[dict[str, Any]]
"""Each `word` with `start` and `end` in seconds, and `score`, which is None where its time is interpolated."""
LEAST_GAIN = 0.4
"""Of a text that was said, see `Heard.gain`: 0.54 to 0.97 for 25 utterances of LibriSpeech and quickstart's aligner,
-0.12 to 0.30 for each with the text of another."""


def align_recording(file: Path, text: str | None, language: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Cut `file` at pauses, as recordings of a corpus are, and align what is said between them.

    Args:
        file: whatever libav reads, however long.
        text: what is said in all of it; None has it recognised.
        language: its code, such as ``en``.
        models: ``"aligner"``, a fitted aligner or a ``Wav2Vec2ForCTC`` folder; ``"asr"``, a faster-whisper folder.

    Returns `utterance_id` (the file's name), `duration` (end of the last speech), `language`, `text`, `words` with
    times in the recording, `doubtful` where the given text of their segment does not sound like it, and `left_out`, why
    the words of some stretches are missing.
    Raises SpiritLMError: it has no words at all.
    """
    draft = draft_of(stat_file(local_uri(file)), text)
    audio = AudioStage(AudioConfig(), {}).process(list_items(Source(), language, StatCache(), [draft]))
    stage = _Doubting(WordsConfig(), models)
    stage.setup()
    rows, words, reasons = audio.to_pylist(), list[dict[str, Any]](), list[str]()
    for row, found, gain in zip(rows, stage.process(audio).to_pylist(), stage.gains, strict=True):
        if found["reject_reason"]:
            reasons.append(found["reject_reason"])
        doubtful = found["text_origin"] == "given" and not gain >= LEAST_GAIN
        words += [{**_moved(word, row["start"]), "doubtful": doubtful} for word in found["words"] or ()]
    if not words:
        raise SpiritLMError(f"{file}: {reasons[0] if reasons else 'no words were found'}")
    whole = " ".join(word["word"] for word in words)
    end = max(row["end"] or 0.0 for row in rows)
    return {"utterance_id": file.stem, "duration": end, "language": language, "text": whole, "words": words,
            "left_out": reasons}  # fmt: skip


class _Doubting(WordsStage):
    """The words, and for each row of the last table how well they fit: see `Heard.gain`; inf where nothing can tell."""

    def _row(self, row: Row, placed: list[Word] | None) -> Row:
        self._gain = math.inf
        found = super()._row(row, placed)
        self.gains.append(self._gain)
        return found

    def _spans(self, aligner: Aligner, heard: Heard, words: list[Word]) -> list[Span | None]:
        self._gain = heard.gain([part for word in words for part in word.spoken])
        return super()._spans(aligner, heard, words)

    def process(self, *tables: pa.Table) -> pa.Table:
        """As :meth:`WordsStage.process`."""
        self.gains: list[float] = []
        return super().process(*tables)


def _moved(word: dict[str, Any], by: float) -> dict[str, Any]:
    return {**word, "start": word["start"] + by, "end": word["end"] + by}


def lines_of(
    words: Sequence[Mapping[str, Any]], characters: int = 42, seconds: float = 6.0, pause: float = 0.7
) -> Words:
    """Words joined to lines of subtitles: so many characters and seconds at most, and anew after a pause or a sentence.

    42 characters and 6 seconds are what broadcasters allow (EBU, BBC).
    """
    lines: Words = []
    for word in words:
        line = lines[-1] if lines else None
        if line is None or not (
            len(line["word"]) + 1 + len(word["word"]) <= characters
            and word["end"] - line["start"] <= seconds
            and word["start"] - line["end"] <= pause
            and not line["word"].endswith((".", "?", "!"))
        ):
            lines.append({"word": word["word"], "start": word["start"], "end": word["end"], "score": None})
        else:
            line |= {"word": f"{line['word']} {word['word']}", "end": word["end"]}
    return lines
