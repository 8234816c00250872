"""Units to one entry of each stream per frame of 40 ms, by the rules of the released vocoders."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.tokens.speech import Streams as UnitStreams

Stream = NDArray[np.int64]
Streams = dict[str, Stream]
Durations = Callable[[Stream], Stream]  # predicted frames of each unit, int64[N], for units int64[N]


def streams_of(units: UnitStreams, config: VocoderConfig) -> Streams:
    """The streams that a vocoder takes, without negative units, as ``units``, ``pitch`` and ``style``.

    Where a stream has one entry per unit, it loses those of negative units, too. Raises SpiritLMError: a stream is
    missing or has a unit that the vocoder does not know, or there are no units.
    """
    given: dict[str, Any] = {"units": units.hubert, "pitch": units.pitch, "style": units.style}
    taken = {name: _stream(name, given[name]) for name in given if name in config.embeddings}
    count, kept = len(taken["units"]), taken["units"] >= 0
    frames = {name: stream[kept] if len(stream) == count else stream for name, stream in taken.items()}
    if not len(frames["units"]):
        raise SpiritLMError("there are no HuBERT units to make a waveform of")
    for name, stream in frames.items():
        _check(name, stream, config.embeddings[name])
    return frames


def frames_of(streams: Streams, config: VocoderConfig, durations: Durations | None, *, collapse: bool) -> Streams:
    """One entry of each stream per frame.

    Args:
        streams: as :func:`streams_of` gives them.
        config: of the vocoder.
        durations: predicts how long a unit lasts. Without it, or where pitch has not one entry per unit (units of a
            recording), every unit is as many frames as the vocoder was fitted with.
        collapse: runs of equal units count as one before durations are predicted.

    Raises SpiritLMError: pitch or style are too few or too many for so many units.
    """
    count, lasting_each = len(streams["units"]), config.unit_frames
    if durations is None or _is_recorded(streams, config):
        every = {"units": lasting_each, "pitch": config.pitch_frames, "style": config.style_frames}
        every |= {name: lasting_each for name, stream in streams.items() if len(stream) == count}
        return {name: _spread(name, stream, every[name], count * lasting_each) for name, stream in streams.items()}
    if wrong := [name for name, stream in streams.items() if len(stream) != count]:
        raise SpiritLMError(
            f"{wrong[0]} has {len(streams[wrong[0]])} units, but durations need one for each of {count}"
        )
    rows = _collapsed(streams) if collapse else streams
    lasting = durations(rows["units"])
    return {name: np.repeat(stream, lasting) for name, stream in rows.items()}


def _is_recorded(streams: Streams, config: VocoderConfig) -> bool:
    """Whether streams have their own rates, as units of a recording: at 12.5 Hz pitch has that of HuBERT units, too."""
    telling = ("pitch",) if config.unit_frames == 1 else ("pitch", "style")
    return any(len(streams[name]) != len(streams["units"]) for name in telling if name in streams)


def _spread(name: str, stream: Stream, every: int, count: int) -> Stream:
    """Each unit `every` times, cut to `count` frames or with the last one going on."""
    # A second begun has a style unit, and each piece of 100 s has one HuBERT unit less than 40 ms would make.
    if abs(len(stream) * every - count) > every + 1 + count // 2499:
        raise SpiritLMError(
            f"{len(stream)} {name} units do not fit {count} frames of HuBERT units: "
            f"{every} of these go with each, or one unit with one if durations are predicted"
        )
    spread = np.repeat(stream, every)[:count]
    return np.pad(spread, (0, count - len(spread)), mode="edge")


def _collapsed(streams: Mapping[str, Stream]) -> Streams:
    units = streams["units"]
    first = np.concatenate([[True], units[1:] != units[:-1]])
    return {name: stream[first] for name, stream in streams.items()}


def _stream(name: str, given: Any) -> Stream:
    values = np.asarray([] if given is None else given)
    if values.ndim != 1 or (len(values) and not np.issubdtype(values.dtype, np.integer)):
        raise SpiritLMError(f"{name} must be integers, one after the other, not {values.dtype}{list(values.shape)}")
    return values.astype(np.int64)


def _check(name: str, stream: Stream, size: int) -> None:
    if not len(stream):
        raise SpiritLMError(f"this vocoder needs {name} units, and there are none")
    if stream.min() < 0 or stream.max() >= size:
        bad = stream[(stream < 0) | (stream >= size)][0]
        what = "HuBERT" if name == "units" else name
        raise SpiritLMError(f"this vocoder has {what} units 0 to {size - 1}, not {bad}")
