"""HuBERT units drawn over the spectrogram of what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.lake.schema import SAMPLE_RATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WINDOW, _HOP = 512, 160
_WIDTH = 13.0  # inches
_NARROWEST = 0.09  # inches that a number takes when it stands upright
_LINE: dict[str, Any] = {"color": "#5eead4", "linewidth": 1.0, "alpha": 0.9}
_NUMBER: dict[str, Any] = {"color": "white", "fontsize": 6.5, "rotation": 90, "ha": "center", "va": "center"}


@dataclass(frozen=True)
class Panel:
    """One stretch of speech.

    Attributes:
        waveform: float32[samples] at 16 kHz.
        units: int[units], one behind the other.
        ends: where each ends, in seconds, float[units].
    """

    title: str
    waveform: NDArray[np.float32]
    units: NDArray[np.integer]
    ends: NDArray[np.floating]


def panel(
    title: str,
    waveform: NDArray[np.float32],
    units: NDArray[np.integer],
    durations: NDArray[np.integer] | None = None,
) -> Panel:
    """A panel whose units take their share of the waveform, float32[samples] at 16 kHz.

    Of `units`, int[units], equal neighbours become one. `durations` are in any measure, all the same if not given.
    """
    lengths = np.ones(len(units)) if durations is None else np.asarray(durations, float)
    ends = np.cumsum(lengths) / max(float(lengths.sum()), 1e-9) * (len(waveform) / SAMPLE_RATE)
    last = np.append(units[1:] != units[:-1], np.ones(min(1, len(units)), bool))
    return Panel(title, waveform, units[last], ends[last])


def figure(panels: Sequence[Panel]) -> Figure:
    """The panels below each other."""
    from matplotlib.figure import Figure

    found = Figure(figsize=(_WIDTH, 0.4 + 2.2 * max(1, len(panels))), layout="constrained", dpi=110)
    rows = list(found.subplots(max(1, len(panels)), 1, squeeze=False)[:, 0])[: len(panels)]
    for axes, one in zip(rows, panels, strict=True):
        _spectrogram(axes, one.waveform)
        seconds = len(one.waveform) / SAMPLE_RATE
        _units(axes, one, seconds)
        axes.set(xlim=(0, max(seconds, 0.01)), ylabel="kHz", yticks=range(0, 9, 2))
        axes.set_title(f"{one.title}: {len(one.units)} units in {seconds:.2f} s", loc="left", fontsize=10)
    if panels:
        rows[-1].set_xlabel("seconds")
    return found


def _spectrogram(axes: Axes, waveform: NDArray[np.float32]) -> None:
    padded = np.pad(waveform, (_WINDOW // 2, _WINDOW // 2 + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1)) ** 2
    decibels = 10 * np.log10(power + 1e-8).T
    top = float(decibels.max())
    extent = (0.0, len(frames) * _HOP / SAMPLE_RATE, 0.0, SAMPLE_RATE / 2000)
    axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - 70, vmax=top)


def _units(axes: Axes, one: Panel, seconds: float) -> None:
    """A step for each unit, at the height of its number, and the number in a strip above where there is room for it."""
    top = SAMPLE_RATE / 2000
    starts = np.concatenate([[0.0], one.ends[:-1]]) if len(one.ends) else one.ends
    axes.vlines(one.ends, 0, top, colors="white", linewidth=0.4, alpha=0.3)
    scale = top / max(float(one.units.max(initial=0)), 1.0) * 0.96
    axes.step(np.append(starts, one.ends[-1:]), np.append(one.units, one.units[-1:]) * scale, where="post", **_LINE)
    axes.set_ylim(0, top * 1.25)
    axes.axhspan(top, top * 1.25, color="#16202a")
    room = _WIDTH * 0.92 / max(seconds, 1e-9)  # inches of a second
    for start, end, unit in zip(starts, one.ends, one.units, strict=True):
        if (end - start) * room >= _NARROWEST:
            axes.text((start + end) / 2, top * 1.125, str(unit), **_NUMBER)
