"""Transcripts as text, subtitles, and JSON with the times of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from numpy.typing import NDArray

from spiritlm_core.align.config import WordsConfig
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.errors import Rejection
from spiritlm_core.export.formats import subtitles
from spiritlm_core.lm.generate.content import Answer
from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.openai.schema import TranscriptionRequest
from spiritlm_core.serve.openai.writing import transcribed

TimedWord = dict[str, Any]
"""``word``, and its ``start`` and ``end`` in seconds."""


class WordTimes:
    """Finds when the words of a transcript were said, with the aligner in a folder."""

    def __init__(self, folder: Path) -> None:
        config = WordsConfig(mode="given", max_misfit=1e9)  # words that the model made up have a place, too
        self._stage = WordsStage(config, {"aligner": folder})

    def of(self, waveform: NDArray[np.float32], text: str, language: str) -> list[TimedWord] | None:
        """The words of `text` in float32[samples] at 16 kHz; None where they cannot be placed."""
        try:
            return self._stage.words_in(waveform, text, language) if text else None
        except Rejection:
            return None


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording."""

    answer: Answer
    seconds: float  # that the recording lasts
    words: list[TimedWord] | None  # with their times, where these are known

    def response(self, request: TranscriptionRequest) -> Response:
        """In the format that is asked for."""
        kind = request.response_format
        if kind == "text":
            return PlainTextResponse(f"{self.answer.text}\n")
        if kind in ("srt", "vtt"):
            media_type = "text/vtt" if kind == "vtt" else "application/x-subrip"
            return PlainTextResponse(subtitles(kind, self.cues()), media_type=media_type)
        if kind == "json":
            return JSONResponse(transcribed(self.answer))
        return JSONResponse(self._verbose(request))

    def cues(self) -> list[TimedWord]:
        """Subtitles, in the form of words: of a line at most, parted at pauses; one of all where no times are known."""
        if self.words is None:
            text = self.answer.text
            return [{"word": text, "start": 0.0, "end": self.seconds}] if text else []
        from spiritlm_core.align.recording import lines_of

        return lines_of(self.words)

    def _verbose(self, request: TranscriptionRequest) -> dict[str, Any]:
        text = self.answer.text
        segment = {"id": 0, "seek": 0, "start": 0.0, "end": self.seconds, "text": text}
        segment |= {"tokens": list(self.answer.ids), "temperature": request.temperature or 0.0}
        found = {"task": "transcribe", "language": request.language, "duration": self.seconds, "text": text}
        found |= {"segments": [segment] if text else [], "usage": {"type": "duration", "seconds": self.seconds}}
        found |= {"empty": self.answer.empty} if self.answer.empty else {}
        if "word" in request.timestamp_granularities:
            found["words"] = [{name: word[name] for name in ("word", "start", "end")} for word in self.words or ()]
        return found


def check_wanted(request: TranscriptionRequest, times: WordTimes | None, languages: Sequence[str]) -> None:
    """Refuse what cannot be had of a model that was taught these `languages`. Raises RequestError: says what to do."""
    if languages and request.language.lower()[:3].rstrip("-_") not in languages:
        message = f"the model was taught {', '.join(languages)}, not {request.language}"
        raise RequestError(400, "unsupported_language", message, "language")
    if "word" in request.timestamp_granularities and times is None:
        message = "times of words need an aligner: start the server with --aligner"
        raise RequestError(400, "no_aligner", message, "timestamp_granularities")
