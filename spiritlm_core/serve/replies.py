"""Answers, as the HTTP interface gives them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import encode_wav, to_int16
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.content import Answer, Segment, SpeechSegment
from spiritlm_core.lm.generate.presets import Classification
from spiritlm_core.lm.generate.speaking import Heard, Sound, hears, speaks
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.verdicts import OFFERS, doubt
from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.schema import (
    ClassifyResponse,
    GenerateResponse,
    ModelDescription,
    SpeechAnswer,
    TextAnswer,
    TokenizeResponse,
    TranscribeResponse,
)
from spiritlm_core.speech.types import Units


@dataclass(frozen=True)
class Reply:
    """An answer with its sound, in segments that differ in kind from their neighbours, and without it."""

    segments: tuple[Heard, ...]
    answer: Answer

    @property
    def waveform(self) -> NDArray[np.float32] | None:
        """All that is heard, float32[samples] at 16 kHz; None if that is nothing."""
        heard = [segment.waveform for segment in self.segments if segment.waveform is not None]
        return np.concatenate(heard) if heard else None

    def followed_by(self, other: Reply) -> Reply:
        """Two answers as one."""
        first, second = self.answer, other.answer
        answer = Answer(
            (*first.segments, *second.segments),
            first.prompt_ids + second.prompt_ids,
            first.ids + second.ids,
            "length" if "length" in (first.finish, second.finish) else first.finish,
        )
        return Reply((*self.segments, *other.segments), answer)


def generated(reply: Reply, model: str) -> GenerateResponse:
    """The answer to a prompt."""
    return GenerateResponse(
        model=model,
        segments=[_segment(heard) for heard in reply.segments],
        finish=reply.answer.finish,
        prompt_tokens=len(reply.answer.prompt_ids),
        new_tokens=len(reply.answer.ids),
    )


def _segment(heard: Heard) -> TextAnswer | SpeechAnswer:
    if not isinstance(heard.segment, SpeechSegment):
        return TextAnswer(text=heard.segment.text)
    wav = None if heard.waveform is None else base64_of(encode_wav(heard.waveform))
    return SpeechAnswer(tokens=heard.segment.tokens, wav=wav, silent=heard.silent)


def transcribed(answer: Answer, model: str) -> TranscribeResponse:
    """What was said in a recording."""
    return TranscribeResponse(model=model, text=answer.text, finish=answer.finish, empty=answer.empty)


def classified(choice: Classification, model: str) -> ClassifyResponse:
    """The label of a question."""
    probabilities = dict(zip(choice.labels, choice.probabilities.tolist(), strict=True))
    nats = dict(zip(choice.labels, choice.nats.tolist(), strict=True))
    return ClassifyResponse(model=model, label=choice.label, probabilities=probabilities, nats=nats, empty=choice.empty)


def tokenized(answer: tuple[str, Units], model: str) -> TokenizeResponse:
    """The units of a recording."""
    tokens, units = answer
    streams = {name: getattr(units, name) for name in ("hubert", "pitch", "style")}
    lists = {name: None if stream is None else stream.tolist() for name, stream in streams.items()}
    return TokenizeResponse(model=model, tokens=tokens, **lists)


class Events:
    """Server-sent events of a streamed answer."""

    media_type = "text/event-stream"

    def __init__(self, model: str) -> None:
        self._model = model

    def write(self, piece: Segment | Sound | Reply) -> str:
        """``done`` of the whole answer, ``audio`` of what is heard, ``segment`` of text and tokens."""
        if isinstance(piece, Reply):
            return self._event("done", generated(piece, self._model).model_dump())
        if isinstance(piece, Sound):
            pcm = to_int16(piece.waveform).astype("<i2").tobytes()
            return self._event("audio", {"sample_rate": SAMPLE_RATE, "pcm": base64_of(pcm)})
        name = "tokens" if isinstance(piece, SpeechSegment) else "text"
        return self._event("segment", {"kind": piece.kind, name: piece.content})

    def fail(self, error: RequestError) -> str:
        """``error``, in place of ``done``."""
        return self._event("error", error.to_dict())

    def _event(self, name: str, data: dict[str, Any]) -> str:
        return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def base64_of(data: bytes) -> str:
    """Bytes as JSON can hold them."""
    return base64.b64encode(data).decode()


def describe(name: str, spirit: SpiritLM) -> ModelDescription:
    """What a model can do."""
    known = spirit.vocabulary
    vocoder = spirit.speech_tokenizer.vocoder.config if speaks(spirit) else None
    voices = vocoder.embeddings if vocoder else {}
    return ModelDescription(
        name=name,
        variant="expressive" if known.pitch else "base",
        context_length=int(spirit.model.config.max_position_embeddings),
        text_tokens=known.text_size,
        units={"hubert": known.hubert, "pitch": known.pitch, "style": known.style},
        hears=hears(spirit),
        speaks=vocoder is not None,
        speakers=voices.get("speaker", 0),
        speaker_names=list(vocoder.speaker_names) if vocoder else [],
        expressions=voices.get("expression", 0),
        doubts={task: said for task in OFFERS if (said := doubt(spirit.verdicts, task))},
    )
