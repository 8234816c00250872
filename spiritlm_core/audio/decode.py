"""Any file with sound in it to one channel of samples, piece by piece and within limits."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from spiritlm_core.audio.chunks import TAG, Part, parts
from spiritlm_core.audio.config import LimitsConfig
from spiritlm_core.audio.truncation import HEADER_TELLS_LENGTH, missing_end
from spiritlm_core.errors import Rejection
from spiritlm_core.intake.embedded import open_container
from spiritlm_core.intake.sniff import HEAD, is_headerless, text_instead

Pieces = Iterator[tuple[np.ndarray, int]]
"""Samples, float32[n] or float32[channels, n], with their rate in hertz, which is the same throughout."""

_TOLERANCE = 0.02  # seconds by which a header may be off
_MP4_TOLERANCE = 0.1  # where encoder delay and edit lists blur it
_LOUDEST = 1 << 16  # times full scale, which float samples may exceed
_ENOUGH = 1 << 28  # bytes; a machine that has them is not short of memory
_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError)  # of PyAV, at headers of impossible values


class TooLong(Rejection):
    """Audio that lasts longer than it may."""


def decode_mono(
    file: BinaryIO,
    name: str,
    channel: int | None,
    limits: LimitsConfig,
    resample: Callable[[Pieces], Iterator[np.ndarray]],
    sink: BinaryIO,
) -> None:
    """One channel of a file, resampled by `resample`, written to `sink`.

    Args:
        file: seekable, any format.
        name: its name or URI; headerless G.722 is known by ``.g722`` at its end, or as a prompt, alone.
        channel: which one to take; null averages all of them, or takes the loudest where they cancel each other.
        limits: what the file may be.
        resample: makes pieces of samples of those of the file.
        sink: empty; takes the samples as they lie in memory.

    Raises TooLong: longer than allowed; Rejection: not audio, damaged, cut short, beyond the limits, no such channel,
    or samples that are no numbers.
    """
    mix = Downmix(channel)
    for piece in resample((mix.mono(piece), rate) for piece, rate in _decode(file, name, limits)):
        samples = np.ascontiguousarray(piece)
        sink.write(samples.data)
    if mix.cancels:
        sink.seek(0)
        sink.truncate()
        decode_mono(file, name, mix.loudest, limits, resample, sink)


class Downmix:
    """Averages channels, and knows whether they cancelled each other, as those of opposite phase do."""

    def __init__(self, channel: int | None = None) -> None:
        self._channel = channel
        self._energies, self._left = np.zeros(1), 0.0

    def mono(self, samples: np.ndarray) -> np.ndarray:
        """float32[n] of the next float32[channels, n].

        Raises Rejection: there is no such channel, or samples that are no numbers.
        """
        if self._channel is not None and not 0 <= self._channel < len(samples):
            raise Rejection(f"no channel {self._channel}: it has {len(samples)}")
        with np.errstate(over="ignore", invalid="ignore"):
            mono: np.ndarray = samples.mean(axis=0) if self._channel is None else samples[self._channel]
        if not np.isfinite(mono).all():
            raise Rejection("samples that are no numbers (NaN or infinite)")
        if np.abs(mono).max(initial=0) > _LOUDEST:
            raise Rejection("samples that are no sound: thousands of times louder than full scale")
        if self._channel is None and len(samples) > 1:
            self._energies = self._energies + np.square(samples, dtype=np.float64).sum(axis=1)
            self._left += float(np.square(mono, dtype=np.float64).sum())
        return mono

    @property
    def cancels(self) -> bool:
        """Whether the average has less than a tenth of the energy that unrelated channels would leave."""
        return self._left < float(self._energies.sum()) / (10 * len(self._energies) ** 2)

    @property
    def loudest(self) -> int:
        """The channel with most energy, counted from 0."""
        return int(self._energies.argmax())


def _decode(file: BinaryIO, name: str, limits: LimitsConfig) -> Pieces:
    file.seek(0)
    if not file.read(1):
        raise Rejection("empty file (0 bytes)")
    if reason := missing_end(file):
        raise Rejection(reason)
    count, known = 0, None
    for part in parts(file):
        for piece, rate in _part(part, name, limits):
            if (known := known or (len(piece), rate)) != (len(piece), rate):
                raise Rejection("its rate or its number of channels changes on the way")
            count += piece.shape[1]
            if count > limits.max_hours * 3600 * rate:
                raise TooLong(f"longer than {_duration(limits.max_hours)} (max_hours)")
            yield piece, rate
    if not count:
        raise Rejection("no samples in the file")


def _part(part: Part, name: str, limits: LimitsConfig) -> Pieces:
    import av

    head = part.read(HEAD)
    raw = (name.lower().endswith(".g722") or name.startswith("prompts://")) and is_headerless(head)
    part.seek(0)
    try:
        with open_container(part, "g722" if raw else None) as box:
            yield from _frames(box, _stream(box), limits)
    except av.FFmpegError as error:  # errors of reading the file pass as they are
        if isinstance(error, MemoryError):
            _check_memory()
        reason = text_instead(head) or getattr(error, "strerror", None) or error
        raise Rejection(f"cannot be decoded: {reason}") from error
    except _DAMAGE as error:
        raise Rejection(f"cannot be decoded: {error}") from error


def _stream(box: Any) -> Any:
    """The first stream of sound that can be decoded."""
    if not box.streams.audio:
        raise Rejection("no audio stream in the file")
    stream = next((stream for stream in box.streams.audio if stream.codec_context), None)
    if stream is None:
        raise Rejection("cannot be decoded: its sound is in an encoding that is not known here")
    return stream


def _frames(box: Any, stream: Any, limits: LimitsConfig) -> Pieces:
    rate, count = stream.rate or 0, 0
    check_format(rate, stream.codec_context.channels, limits)  # before a decoder makes room for them
    for frame in (frame for packet in box.demux(stream) for frame in _decoded(packet)):
        piece, rate = _float32(frame), frame.sample_rate
        check_format(rate, len(piece), limits)
        count += piece.shape[1]
        yield piece, rate
    promised = _promised_seconds(box, stream)
    tolerance = _MP4_TOLERANCE if "mp4" in box.format.name else _TOLERANCE
    if count and count / rate < promised - tolerance and promised <= limits.max_hours * 3600:
        raise Rejection(f"truncated: its header promises {promised:.2f} s, it has {count / rate:.2f} s")


def _decoded(packet: Any) -> list[Any]:
    import av

    try:
        return list(packet.decode())
    except av.InvalidDataError:
        if TAG.match(bytes(packet)):  # between MP3 files joined into one
            return []
        raise


def check_format(rate: int, channels: int, limits: LimitsConfig) -> None:
    """Raise Rejection for a rate in hertz or a number of channels beyond the limits."""
    if not limits.min_rate <= rate <= limits.max_rate:
        between = f"{limits.min_rate} to {limits.max_rate} Hz (min_rate, max_rate)"
        raise Rejection(f"its rate of {rate} Hz is out of bounds: {between}")
    if channels < 1:
        raise Rejection("it has no channels")
    if channels > limits.max_channels:
        raise Rejection(f"it has {channels} channels, at most {limits.max_channels} are allowed (max_channels)")


def _check_memory() -> None:
    """Raise MemoryError if it is the machine that is short of memory, and not the file that asks for too much."""
    np.empty(_ENOUGH, np.uint8)


def _duration(hours: float) -> str:
    return f"{hours:g} h" if hours >= 1 else f"{3600 * hours:g} s"


def _promised_seconds(box: Any, stream: Any) -> float:
    known = box.format.name in HEADER_TELLS_LENGTH and stream.duration
    return float(stream.duration * stream.time_base) if known else 0.0


def _float32(frame: Any) -> np.ndarray:
    """float32[channels, n] of a decoded frame; integers are scaled to [-1, 1)."""
    channels = frame.layout.nb_channels
    samples = _planes(frame, channels) if frame.format.is_planar else frame.to_ndarray().reshape(-1, channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if samples.dtype.kind == "i":
        return (samples / float(1 << (8 * samples.itemsize - 1))).astype(np.float32)
    with np.errstate(over="ignore"):
        return samples.astype(np.float32)


def _planes(frame: Any, channels: int) -> np.ndarray:
    """A row for each channel, by number: libav marks no end of more than eight planes, and PyAV reads on beyond it."""
    from av.audio.frame import format_dtypes
    from av.audio.plane import AudioPlane

    dtype = np.dtype(format_dtypes[frame.format.name])
    planes: list[Any] = [AudioPlane(frame, index) for index in range(channels)]
    return np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in planes])
