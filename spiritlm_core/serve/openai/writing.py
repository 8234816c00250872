"""Answers in the form that OpenAI's clients read: whole, or in pieces."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from spiritlm_core.audio.encode import AudioFormat, Encoder, encode
from spiritlm_core.lm.generate.content import Answer, TextSegment
from spiritlm_core.lm.generate.speaking import Sound
from spiritlm_core.serve.asking import Piece
from spiritlm_core.serve.errors import RequestError, openai_error, silent
from spiritlm_core.serve.openai.schema import audio_id
from spiritlm_core.serve.replies import Reply, base64_of

_KEPT = 10 * 365 * 24 * 3600  # seconds for which the id of an answer holds: it names what it holds
_DONE = "data: [DONE]\n\n"


def sse(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def usage(answer: Answer, taken: str = "prompt", given: str = "completion") -> dict[str, int]:
    """How many tokens a request and its answer have."""
    asked, new = len(answer.prompt_ids), len(answer.ids)
    return {f"{taken}_tokens": asked, f"{given}_tokens": new, "total_tokens": asked + new}


def transcribed(answer: Answer) -> dict[str, Any]:
    """What was written down, how many tokens it took, and why it is nothing."""
    used = {"type": "tokens", **usage(answer, "input", "output")}
    return {"text": answer.text, "usage": used, **({"empty": answer.empty} if answer.empty else {})}


def completion(reply: Reply, model: str, spoken: AudioFormat | None) -> dict[str, Any]:
    """A whole answer, `spoken` in that format if at all. Raises RequestError: nothing of it can be heard."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.answer.text, "refusal": None}
    if spoken is not None:
        if reply.waveform is None:
            raise silent()
        data = base64_of(encode(reply.waveform, spoken))
        message |= {"content": None, "audio": {**_audio(reply), "transcript": reply.answer.text, "data": data}}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply.answer)}
    return {**_head("chat.completion", model), "choices": [choice], "usage": usage(reply.answer)}


def _audio(reply: Reply) -> dict[str, Any]:
    return {"id": audio_id(reply.answer.tokens), "expires_at": int(time.time()) + _KEPT}


def _head(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _finish(answer: Answer) -> str:
    return "length" if answer.finish == "length" else "stop"


class _Events:
    """Server-sent events, whose last resort is an error of OpenAI's form."""

    media_type = "text/event-stream"
    _begun = False

    def fail(self, error: RequestError) -> str:
        """An event with the error."""
        return sse(openai_error(error))

    def _text(self, segment: TextSegment) -> str:
        """New text; the white space in front of all of it is none of the answer."""
        text = segment.text if self._begun else segment.text.lstrip()
        self._begun = self._begun or bool(text)
        return text


class ChatChunks(_Events):
    """An answer as chunks of a completion, with its usage behind if that is asked for."""

    def __init__(self, model: str, spoken: AudioFormat | None, *, with_usage: bool) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._encoder = Encoder(spoken) if spoken is not None else None
        self._with_usage, self._first = with_usage, True

    def write(self, piece: Piece) -> str:
        """What is new: text (a transcript where the answer is spoken) or audio; behind the last, how it ended."""
        if isinstance(piece, Reply):
            return self._end(piece)
        if isinstance(piece, TextSegment) and (text := self._text(piece)):
            return self._chunk({"audio": {"transcript": text}} if self._encoder else {"content": text})
        if isinstance(piece, Sound) and self._encoder and (data := self._encoder.feed(piece.waveform)):
            return self._chunk({"audio": {"data": base64_of(data)}})
        return ""

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> str:
        if self._first:
            delta, self._first = {"role": "assistant", **delta}, False
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**self._head, "choices": [choice]})

    def _end(self, reply: Reply) -> str:
        last = ""
        if self._encoder is not None:
            last = self._chunk({"audio": {"data": base64_of(self._encoder.close()), **_audio(reply)}})
        last += self._chunk({}, _finish(reply.answer))
        if self._with_usage:
            last += sse({**self._head, "choices": [], "usage": usage(reply.answer)})
        return last + _DONE


class SpeechFile:
    """Speech as a file, the beginning of which is sent while the rest is made."""

    def __init__(self, kind: AudioFormat) -> None:
        self._encoder = Encoder(kind)
        self.media_type = self._encoder.media_type

    def write(self, piece: Piece) -> bytes:
        """What is ready."""
        if isinstance(piece, Reply):
            return self._encoder.close()
        return self._encoder.feed(piece.waveform) if isinstance(piece, Sound) else b""

    def fail(self, error: RequestError) -> bytes:
        """Breaks the connection off, since a file that just ended would pass for a whole one."""
        raise error


class SpeechEvents(_Events):
    """Speech as events."""

    def __init__(self, kind: AudioFormat) -> None:
        self._file = SpeechFile(kind)

    def write(self, piece: Piece) -> str:
        """``speech.audio.delta`` of what is ready, ``speech.audio.done``."""
        data = self._file.write(piece)
        more = sse({"type": "speech.audio.delta", "audio": base64_of(data)}) if data else ""
        if isinstance(piece, Reply):
            more += sse({"type": "speech.audio.done", "usage": usage(piece.answer, "input", "output")})
        return more


class TranscriptEvents(_Events):
    """A transcript as events."""

    def write(self, piece: Piece) -> str:
        """``transcript.text.delta`` of what is new, ``transcript.text.done``."""
        if isinstance(piece, Reply):
            return sse({"type": "transcript.text.done", **transcribed(piece.answer)})
        text = self._text(piece) if isinstance(piece, TextSegment) else ""
        return sse({"type": "transcript.text.delta", "delta": text}) if text else ""
