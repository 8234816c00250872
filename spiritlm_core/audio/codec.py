"""Audio in any usual format to 16 kHz mono, and FLAC in and out of the lake.

Decoding goes through libav (PyAV) piece by piece, so a long recording costs its 16 kHz samples and no more.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from spiritlm_core.audio.container import open_container
from spiritlm_core.audio.truncation import HEADER_TELLS_LENGTH, missing_end
from spiritlm_core.errors import Rejection
from spiritlm_core.lake.schema import SAMPLE_RATE

if TYPE_CHECKING:
    import av

# 256 taps per phase: flat to 7.5 kHz, aliases below -94 dB above 8.2 kHz (libswresample's default lets -15 dB through)
_RESAMPLE = f"{SAMPLE_RATE}:filter_size=128:cutoff=0.97"
_TOLERANCE = 0.02  # seconds by which a header may be off
_MP4_TOLERANCE = 0.1  # where encoder delay and edit lists blur it
_PIECE = 1 << 16  # samples handed to the resampler at once


class TooLong(Rejection):
    """Audio that lasts longer than it may."""


def encode_flac(waveform: np.ndarray) -> bytes:
    """Encode float32[T] in [-1, 1] (or int16[T]) at 16 kHz as 16-bit mono FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(waveform), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def encode_wav(waveform: np.ndarray) -> bytes:
    """Encode float32[T] in [-1, 1] (or int16[T]) at 16 kHz as a 16-bit mono WAV file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(waveform), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """Decode what `encode_flac` wrote: float32[T] in [-1, 1], 16 kHz."""
    import soundfile

    samples: np.ndarray
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=False)
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise Rejection(f"audio of the lake must be {SAMPLE_RATE} Hz mono, not {rate} Hz with shape {samples.shape}")
    return samples


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round float samples to int16, full scale at 32768; int16 passes through."""
    if waveform.dtype == np.int16:
        return waveform
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)


def to_float32(waveform: np.ndarray) -> np.ndarray:
    """int16 samples as float32 in [-1, 1)."""
    return waveform.astype(np.float32) / np.float32(32768.0)


def read_waveform(data: bytes, name: str, most_seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Decode a whole file of any format.

    Args:
        data: the file's bytes.
        name: its name; ``.g722`` has no header and is known by its extension alone.
        most_seconds: a longer one is refused as soon as that is known: a small file may hold many hours.

    Returns:
        float32[channels, T] and the file's own sampling rate in hertz.

    Raises:
        TooLong: longer than `most_seconds`.
        Rejection: not audio, damaged, or cut short.
    """
    pieces, rate, count = [], 0, 0
    for piece, rate in _decode(io.BytesIO(data), name):
        pieces.append(piece)
        count += piece.shape[1]
        if most_seconds is not None and count > most_seconds * rate:
            raise TooLong(f"longer than {most_seconds:g} s")
    return np.concatenate(pieces, axis=1), rate


def header(data: bytes) -> tuple[int, int] | None:
    """Sampling rate in hertz and number of channels that a file claims to have; None if it is no audio."""
    import av

    try:
        with open_container(io.BytesIO(data)) as box:
            found = box.streams.audio
            return (found[0].rate or 0, found[0].channels) if found else None
    except (av.FFmpegError, ValueError):
        return None


def read_mono(file: BinaryIO, name: str, channel: int | None = None) -> np.ndarray:
    """Decode a file to 16 kHz mono.

    Args:
        file: seekable, any format.
        name: its name, see `read_waveform`.
        channel: which channel to take; null averages all of them.

    Returns:
        int16[T].

    Raises:
        Rejection: not audio, damaged, cut short, no such channel, or samples that are no numbers.
    """
    pieces = [to_int16(piece) for piece in _resampled(_mono(_decode(file, name), channel))]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def _decode(file: BinaryIO, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (float32[channels, n], rate) piece by piece; rate and channels stay the same throughout."""
    import av

    if not file.read(1):
        raise Rejection("empty file (0 bytes)")
    if reason := missing_end(file):
        raise Rejection(reason)
    try:
        with open_container(file, name) as box:
            if not box.streams.audio:
                raise Rejection("no audio stream in the file")
            yield from _pieces(box, box.streams.audio[0])
    except av.FFmpegError as error:  # errors of reading the file pass as they are
        if isinstance(error, MemoryError):
            raise
        raise Rejection(f"cannot be decoded: {getattr(error, 'strerror', None) or error}") from error


def _pieces(box: Any, stream: Any) -> Iterator[tuple[np.ndarray, int]]:
    rate, shape, count = stream.rate, None, 0
    for frame in box.decode(stream):
        piece = _float32(frame)
        if (shape := shape or (len(piece), frame.sample_rate)) != (len(piece), frame.sample_rate):
            raise Rejection("its rate or its number of channels changes on the way")
        count += piece.shape[1]
        rate = frame.sample_rate
        yield piece, rate
    if not count:
        raise Rejection("no samples in the file")
    promised = _promised_seconds(box, stream)
    tolerance = _MP4_TOLERANCE if "mp4" in box.format.name else _TOLERANCE
    if count / rate < promised - tolerance:
        raise Rejection(f"truncated: its header promises {promised:.2f} s, it has {count / rate:.2f} s")


def _promised_seconds(box: Any, stream: Any) -> float:
    known = box.format.name in HEADER_TELLS_LENGTH and stream.duration
    return float(stream.duration * stream.time_base) if known else 0.0


def _float32(frame: Any) -> np.ndarray:
    """float32[channels, n] of a decoded frame; integers are scaled to [-1, 1)."""
    samples: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if samples.dtype.kind == "i":
        return (samples / float(1 << (8 * samples.itemsize - 1))).astype(np.float32)
    return samples.astype(np.float32)


def _mono(pieces: Iterator[tuple[np.ndarray, int]], channel: int | None) -> Iterator[tuple[np.ndarray, int]]:
    for piece, rate in pieces:
        if channel is not None and channel >= len(piece):
            raise Rejection(f"no channel {channel}: it has {len(piece)}")
        mono = piece.mean(axis=0) if channel is None else piece[channel]
        if not np.isfinite(mono).all():
            raise Rejection("samples that are no numbers (NaN or infinite)")
        yield mono, rate


def _resampled(pieces: Iterator[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
    """Resample float32[n] pieces to 16 kHz; what is at 16 kHz already passes untouched."""
    graph, at = None, 0
    for piece, rate in pieces:
        if rate == SAMPLE_RATE:
            yield piece
            continue
        graph = graph or _resampler(rate)
        for first in range(0, len(piece), _PIECE):
            part = piece[first : first + _PIECE]
            graph.push(_frame(part, rate, at))
            at += len(part)
            yield from _pull(graph)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph)


def _resampler(rate: int) -> av.filter.Graph:
    import av.filter

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono")
    resample, sink = graph.add("aresample", _RESAMPLE), graph.add("abuffersink")
    source.link_to(resample)
    resample.link_to(sink)
    graph.configure()
    return graph


def _frame(samples: np.ndarray, rate: int, at: int) -> av.AudioFrame:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate, frame.pts = rate, at
    return frame


def _pull(graph: av.filter.Graph) -> Iterator[np.ndarray]:
    import av

    while True:
        try:
            yield graph.pull().to_ndarray()[0]
        except (av.BlockingIOError, av.EOFError):
            return
