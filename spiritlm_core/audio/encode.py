"""Speech as files of other formats, encoded in pieces, so that the beginning can be sent while the rest is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from spiritlm_core.audio.codec import encode_wav, to_int16
from spiritlm_core.lake.schema import SAMPLE_RATE

AudioFormat = Literal["wav", "pcm", "flac", "opus", "mp3", "aac"]


@dataclass(frozen=True)
class _Kind:
    """How libav writes a format."""

    media_type: str
    container: str
    codec: str
    rate: int = SAMPLE_RATE  # hertz
    options: dict[str, str] = field(default_factory=dict)  # of the container


FORMATS: dict[AudioFormat, _Kind] = {
    "wav": _Kind("audio/wav", "wav", "pcm_s16le", options={"fflags": "+bitexact"}),
    "pcm": _Kind("audio/pcm", "s16le", "pcm_s16le", 24_000),  # the rate that clients of OpenAI's interface expect
    "flac": _Kind("audio/flac", "flac", "flac"),
    "opus": _Kind("audio/ogg", "ogg", "libopus", options={"page_duration": "100000"}),  # microseconds
    "mp3": _Kind("audio/mpeg", "mp3", "libmp3lame"),
    "aac": _Kind("audio/aac", "adts", "aac"),
}


class Encoder:
    """Encodes mono speech of 16 kHz; each call gives the bytes that are ready by then.

    The header of a ``wav`` promises the longest file there can be, since it is sent before the length is known; ``pcm``
    is 16-bit little-endian at 24 kHz without a header.
    """

    def __init__(self, kind: AudioFormat) -> None:
        import av

        self.media_type = FORMATS[kind].media_type
        self._made, self._samples = _Unseekable(), 0
        self._file = av.open(self._made, "w", format=FORMATS[kind].container, options=FORMATS[kind].options)
        self._stream: Any = self._file.add_stream(FORMATS[kind].codec, rate=FORMATS[kind].rate, layout="mono")

    def feed(self, waveform: np.ndarray) -> bytes:
        """What is ready behind float32[T] in [-1, 1] more."""
        import av

        if len(waveform):
            frame = av.AudioFrame.from_ndarray(to_int16(waveform)[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), self._samples
            self._samples += len(waveform)
            self._file.mux(self._stream.encode(frame))
        return self._made.taken()

    def close(self) -> bytes:
        """The end of the file."""
        self._file.mux(self._stream.encode(None))
        self._file.close()
        return self._made.taken()


def encode(waveform: np.ndarray, kind: AudioFormat) -> bytes:
    """float32[T] in [-1, 1] at 16 kHz as a whole file, whose header says how long it is."""
    if kind == "wav":
        return encode_wav(waveform)
    encoder = Encoder(kind)
    return encoder.feed(waveform) + encoder.close()


class _Unseekable:
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def taken(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken
