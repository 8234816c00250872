"""What the page remembers of a conversation, and the requests that it makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spiritlm_core.serve.body import validated
from spiritlm_core.serve.errors import RequestError, ServeConfig, invalid, too_large
from spiritlm_core.serve.schema import AudioPart, ClassifyRequest, GenerateRequest, SayRequest, TranscribeRequest
from spiritlm_core.serve.service import Recordings

Who = Literal["user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """A part of the conversation: text, a recording, or speech of an answer."""

    who: Who  # whose it is
    text: str | None = None  # what is written
    file: str | None = None  # a recording, or what is heard of an answer
    tokens: str | None = None  # speech tokens of an answer, which are what the model is shown of it

    def part(self) -> dict[str, Any]:
        """As a part of a request; files go by their paths."""
        if self.tokens is not None:
            return {"kind": "units", "tokens": self.tokens}
        return {"kind": "audio", "file": self.file} if self.file else {"kind": "text", "text": self.text or ""}

    def message(self) -> dict[str, Any]:
        """As the page shows it."""
        if self.file is not None:
            return {"role": self.who, "content": {"path": self.file}}
        return {"role": self.who, "content": self.text if self.tokens is None else _short(self.tokens)}


@dataclass(frozen=True)
class Example:
    """A solved example: a recording or a text, and the text that belongs to it."""

    question: Turn
    answer: str


@dataclass(frozen=True)
class Settings:
    """What is set beside the conversation."""

    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    voice: dict[str, Any] = field(default_factory=dict)


def free(turns: Sequence[Turn], output: str, settings: Settings) -> GenerateRequest:
    """Go on with the whole conversation."""
    if not turns:
        raise invalid("there is nothing to answer: type something, or record it")
    values = {"parts": [turn.part() for turn in turns], "output": output, **settings.options, **settings.voice}
    return validated(GenerateRequest, {"model": settings.model, **values})


def transcription(turns: Sequence[Turn], examples: Sequence[Example], settings: Settings) -> TranscribeRequest:
    """Write down the last recording."""
    spoken = [turn for turn in turns if turn.file or turn.tokens]
    if not spoken:
        raise invalid("there is no recording to write down: record or upload one")
    shots = [{"question": [e.question.part()], "answer": [_text(e.answer)]} for e in examples]
    values = {"audio": spoken[-1].part(), "shots": shots, **settings.options}
    return validated(TranscribeRequest, {"model": settings.model, **values})


def saying(turns: Sequence[Turn], examples: Sequence[Example], settings: Settings) -> SayRequest:
    """Say the last text."""
    written = [turn for turn in turns if turn.text]
    if not written:
        raise invalid("there is no text to say: type one")
    shots = [{"question": [_text(e.answer)], "answer": [e.question.part()]} for e in examples]
    values = {"text": written[-1].text, "shots": shots, "format": "json", **settings.options, **settings.voice}
    return validated(SayRequest, {"model": settings.model, **values})


def classification(
    turns: Sequence[Turn], examples: Sequence[Example], labels: str, settings: Settings
) -> ClassifyRequest:
    """Find the label of the last turn."""
    if not turns:
        raise invalid("there is nothing to classify: type something, or record it")
    known = list(dict.fromkeys([*_split(labels), *(example.answer for example in examples)]))
    if len(known) < 2:
        raise invalid("classification needs two labels or more: write them with commas between")
    shots = [{"question": [e.question.part()], "answer": [_text(e.answer)]} for e in examples]
    values = {"parts": [turns[-1].part()], "labels": known, "shots": shots}
    return validated(ClassifyRequest, {"model": settings.model, **values})


def files_of(turns: Sequence[Turn], examples: Sequence[Example] = ()) -> dict[str, bytes]:
    """The recordings by their paths. Raises RequestError: one is there no more."""
    paths = [turn.file for turn in (*turns, *(e.question for e in examples)) if turn.file and turn.tokens is None]
    try:
        return {path: Path(path).read_bytes() for path in paths}
    except OSError as error:
        raise RequestError(400, "gone", "a recording is no longer kept: clear the conversation, record anew") from error


def check_recording(path: str, config: ServeConfig) -> None:
    """Refuse what is too large, too long, or no recording. Raises RequestError: says why."""
    if Path(path).stat().st_size > config.max_bytes:
        raise too_large(config.max_upload_mb)
    recordings = Recordings({path: Path(path).read_bytes()}, config.max_seconds)
    recordings.waveform(AudioPart(file=path), "recording")


def _text(text: str) -> dict[str, str]:
    return {"kind": "text", "text": text}


def _split(labels: str) -> list[str]:
    return [label.strip() for label in labels.replace("\n", ",").split(",") if label.strip()]


def _short(tokens: str) -> str:
    return tokens if len(tokens) <= 160 else f"{tokens[:160]}… ({tokens.count('[')} tokens)"
