"""Audio files in every format that ingest reads, made with the libraries themselves."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soundfile


def sound(path: Path, wave: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> Path:
    """Write float32[T] or [T, channels] with libsndfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sound_bytes(wave, path.suffix[1:].upper().replace("OPUS", "OGG"), rate, subtype))
    return path


def sound_bytes(wave: np.ndarray, kind: str, rate: int = 16_000, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def libav_bytes(wave: np.ndarray, container: str, codec: str, rate: int = 16_000) -> bytes:
    """Encode float32[T] at 16 kHz with libav."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as box:
        stream = box.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((wave[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        size = stream.codec_context.frame_size or None
        convert = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate, frame_size=size)
        for piece in [*convert.resample(frame), *convert.resample(None)]:
            box.mux(stream.encode(piece))
        box.mux(stream.encode(None))
    return buffer.getvalue()


MUXED = {
    "wav": "pcm_s16le",
    "avi": "pcm_s16le",
    "w64": "pcm_s16le",
    "caf": "pcm_s16be",
    "aiff": "pcm_s16be",
    "au": "pcm_s16be",
    "voc": "pcm_s16le",
    "flac": "flac",
    "ogg": "libopus",
    "mp3": "libmp3lame",
    "mp2": "mp2",
    "adts": "aac",
    "mp4": "aac",
    "mov": "aac",
    "3gp": "aac",
    "mpegts": "mp2",
    "vob": "mp2",
    "matroska": "libopus",
    "webm": "libopus",
    "wv": "wavpack",
    "tta": "tta",
    "asf": "libmp3lame",
    "ac3": "ac3",
    "flv": "aac",
    "nut": "pcm_s16le",
}
