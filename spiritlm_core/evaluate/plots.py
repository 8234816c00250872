"""Charts of the report as matplotlib figures. matplotlib is imported on first use and never opens a window."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STREAM_COLOURS = {
    "text": "#3b6fb6",
    "speech": "#c8553d",
    "interleaved": "#6b8f3c",
    "asr": "#2a9d9a",
    "tts": "#b07aa1",
    "classification": "#c79a2b",
}
HELD_OUT = "held out"
_BASELINE = "#b9bec6"
_GOLDEN = 0.618033988749895
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a919c",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": False,
    "grid.color": "#e3e6ea",
    "xtick.color": "#4a5058",
    "ytick.color": "#4a5058",
    "legend.frameon": False,
    "svg.hashsalt": "spiritlm",  # the same figure gives the same bytes
}


def svg(figure: Figure) -> str:
    """The figure as SVG; the same figure gives the same bytes."""
    return _saved(figure, "svg").decode()


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    return _saved(figure, "png")


def _saved(figure: Figure, kind: str) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    nameless = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=110, metadata=nameless)
    return buffer.getvalue()


@contextmanager
def _figure(width: float, height: float, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of `width` by `height` inches in the style of the report, and its axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(**subplots)


def read_curves(metrics: Path) -> dict[str, list[float | None]]:
    """What :func:`training_curves` draws, from the ``metrics.parquet`` of a run; empty if there is none."""
    if not metrics.is_file():
        return {}
    table = pq.read_table(metrics)
    columns = {"step": "step", **{f"loss_{name}": name for name in STREAM_COLOURS}, "validation_loss": HELD_OUT}
    curves = {name: table[column].to_pylist() for column, name in columns.items() if column in table.column_names}
    return {name: values for name, values in curves.items() if any(value is not None for value in values)}


def training_curves(columns: Mapping[str, Sequence[float | None]]) -> Figure:
    """Loss per stream over training, in bits per token.

    `columns` are "step" and one column of nats per token for each curve, None where not measured. That of `HELD_OUT`
    has few points, which are shown as they are.
    """
    names = [name for name in columns if name != "step"]
    with _figure(5.6, 3.0) as (figure, axes):
        for name in names:
            points = [(s, v) for s, v in zip(columns["step"], columns[name], strict=True) if v is not None]
            if not points:
                continue
            steps, values = np.array(points, dtype=np.float64).T
            colour = STREAM_COLOURS.get(name, "#30343a")
            if name == HELD_OUT:
                axes.plot(steps, values / np.log(2), "o--", color=colour, markersize=3, linewidth=1.0, label=name)
                continue
            axes.plot(steps, values / np.log(2), color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(steps, _smooth(values) / np.log(2), color=colour, linewidth=1.6, label=name)
        axes.set(title="Training loss", xlabel="step", ylabel="bits per token")
        axes.grid(axis="y")
        axes.legend(ncols=max(len(names), 1), fontsize=8)
    return figure


def _smooth(values: np.ndarray, share: float = 0.03) -> np.ndarray:
    """Mean over a centred window of 3 % of the points, shorter at the ends."""
    half = int(len(values) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def stream_bars(streams: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Bits per token of the model beside the unigram baseline, with 95 % intervals."""
    names = [name for name, figures in streams.items() if figures["bits_per_token"] is not None]
    with _figure(5.6, 0.62 * max(len(names), 1) + 0.9) as (figure, axes):
        for row, name in enumerate(names):
            figures = streams[name]
            colour = STREAM_COLOURS.get(name.rsplit(".", 1)[-1], "#30343a")
            _bar(axes, row - 0.19, figures, "baseline_bits_per_token", _BASELINE)
            _bar(axes, row + 0.19, figures, "bits_per_token", colour)
        _rows(axes, [name.replace(".", ": ") for name in names])
        axes.set(title="Held-out bits per token (grey: unigram)", xlabel="bits per token, less is better")
        axes.set_xlim(0, axes.get_xlim()[1] * 1.1)  # room for the numbers
    return figure


def _rows(axes: Any, labels: Sequence[str]) -> None:
    """Names of horizontal bars, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()


def _bar(
    axes: Any, y: float, figures: Mapping[str, Any], key: str, colour: str, height: float = 0.36, scale: int = 1
) -> None:
    value, low, high = (scale * figures[name] for name in (key, f"{key}_low", f"{key}_high"))
    spread = [[max(value - low, 0)], [max(high - value, 0)]]
    axes.barh(y, value, height, color=colour, xerr=spread, error_kw={"ecolor": "#30343a", "lw": 0.8, "capsize": 2})
    axes.text(high, y, f"  {value:.2f}" if scale == 1 else f"  {value:.1f}", va="center", fontsize=8)


def fewshot_bars(title: str, rates: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Error rates of one few-shot task: the model first, then what needs no model."""
    with _figure(5.6, 0.34 * len(rates) + 0.9) as (figure, axes):
        for row, (name, figures) in enumerate(rates.items()):
            _bar(axes, row, figures, "rate", "#3b6fb6" if name == "model" else _BASELINE, height=0.7, scale=100)
        _rows(axes, list(rates))
        axes.set(title=title, xlabel="error rate in %, less is better")
        axes.set_xlim(0, max(axes.get_xlim()[1] * 1.12, 10))
    return figure


def duration_histogram(edges: Sequence[float], counts: Sequence[int]) -> Figure:
    """Utterances per class of duration; the last class is open."""
    labels = [f"{low:g} to {high:g}" for low, high in pairwise(edges)] + [f"> {edges[-1]:g}"]
    used = [i for i, count in enumerate(counts) if count] or [0]
    shown = range(used[0], used[-1] + 1)
    with _figure(5.6, 2.4) as (figure, axes):
        bars = axes.bar([labels[i] for i in shown], [counts[i] for i in shown], color="#6f8fb8")
        axes.bar_label(bars, fontsize=8)
        axes.tick_params(axis="x", rotation=45)
        axes.set(title="Utterances by duration", xlabel="seconds")
    return figure


def spread(title: str, edges: Sequence[float], counts: Sequence[int]) -> Figure:
    """How often the values of a number fall between neighbours of `edges`, of which there is one more than counts."""
    with _figure(5.6, 2.4) as (figure, axes):
        axes.stairs(counts, edges, fill=True, color="#6f8fb8")
        axes.set(title=title, ylabel="rows")
    return figure


def shares(title: str, counts: Mapping[str, int]) -> Figure:
    """A bar with its number for each name, the first on top."""
    with _figure(5.6, 0.24 * max(len(counts), 1) + 0.7) as (figure, axes):
        axes.bar_label(axes.barh(range(len(counts)), list(counts.values()), color="#6f8fb8"), fontsize=8, padding=2)
        _rows(axes, [name.replace("$", r"\$")[:40] for name in counts])
        axes.set(title=title, xlabel="rows")
    return figure


def codebook(streams: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Share of frames of each class, most frequent first, on logarithmic axes: a flat line is full use."""
    with _figure(5.6, 2.6) as (figure, axes):
        colours = dict(zip(("hubert", "pitch", "style"), ("#c8553d", "#7a5aa6", "#3d8f8b"), strict=True))
        for name, figures in streams.items():
            counts = np.sort(np.asarray(figures["counts"], dtype=np.float64))[::-1]
            share = counts[counts > 0] / max(counts.sum(), 1)
            label = f"{name}: {figures['used']} of {figures['classes']}"
            axes.plot(np.arange(1, len(share) + 1), 100 * share, label=label, color=colours.get(name), linewidth=1.6)
        axes.set(title="Use of the unit classes", xlabel="rank", ylabel="% of frames", xscale="log", yscale="log")
        axes.grid(which="major")
        axes.legend(fontsize=8)
    return figure


def utterance(
    waveform: np.ndarray,
    words: Sequence[Mapping[str, Any]],
    units: Mapping[str, tuple[Sequence[int], float]],
    rate: int,
    f0: np.ndarray | None = None,
) -> Figure:
    """A waveform float32[T] at `rate` with its words, below it one strip for each unit stream, and the melody.

    `words` are rows of the words table; `units` are of each stream its units, not collapsed, and their rate in hertz;
    `f0` is float32[F] hertz over the waveform, not a number where nothing is voiced.
    """
    seconds = len(waveform) / rate
    heights = [3.2] + [1.5 if name == "hubert" else 1.0 for name in units] + [2.0] * (f0 is not None)
    size = (float(np.clip(3.2 * seconds, 7, 24)), 0.42 * sum(heights) + 0.7)
    grid: dict[str, Any] = {
        "nrows": len(heights),
        "squeeze": False,
        "sharex": True,
        "gridspec_kw": {"height_ratios": heights},
    }
    with _figure(*size, **grid) as (figure, axes):
        _waveform(axes[0, 0], waveform, words, rate)
        for axis, (name, (stream, hertz)) in zip(axes[1:, 0], units.items(), strict=False):
            _strip(axis, name, stream, hertz, inches_per_second=0.93 * size[0] / max(seconds, 1e-3))
        if f0 is not None:
            axes[-1, 0].plot(np.linspace(0, seconds, len(f0)), f0, color="#7a5aa6", linewidth=1.6)
            axes[-1, 0].set_ylabel("F0\nHz", rotation=0, ha="right", va="center", fontsize=8)
        axes[-1, 0].set(xlabel="seconds", xlim=(0, seconds))
    return figure


def _waveform(axes: Any, waveform: np.ndarray, words: Sequence[Mapping[str, Any]], rate: int) -> None:
    low, high, times = _envelope(waveform, rate)
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-4)
    axes.fill_between(times, low / peak, high / peak, color="#5b7fb3", linewidth=0.3, edgecolor="#5b7fb3")
    for word in words:
        start, end, guessed = word["start"], word["end"], word["interpolated"]
        colour = "#a34a28" if guessed else "#30343a"
        axes.axvspan(
            start, end, ymin=0.0, ymax=0.84, color="#f3b08a" if guessed else "#d6dde6", alpha=0.35, linewidth=0
        )
        axes.plot([start, start, end, end], [1.12, 1.2, 1.2, 1.12], color=colour, lw=1, ls=":" if guessed else "-")
        label = str(word["word"]).replace("$", r"\$")
        axes.text((start + end) / 2, 1.26, label, ha="center", va="bottom", fontsize=9, color=colour, rotation=18)
    axes.set(ylim=(-1.05, 1.95), yticks=[], ylabel="waveform")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _envelope(waveform: np.ndarray, rate: int, points: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smallest and largest sample of at most `points` equal pieces, and the times of their middles."""
    step = max(1, len(waveform) // points)
    pieces = waveform[: len(waveform) // step * step].reshape(-1, step)
    return pieces.min(axis=1), pieces.max(axis=1), (np.arange(len(pieces)) + 0.5) * step / rate


def _strip(axes: Any, name: str, units: Sequence[int], hertz: float, inches_per_second: float) -> None:
    """One coloured box per run of equal units, its number inside, upright where the box is narrow."""
    from matplotlib.patches import Rectangle

    for unit, start, end in _runs(units):
        left, width = start / hertz, (end - start) / hertz
        axes.add_patch(Rectangle((left, 0), width, 1, facecolor=unit_colour(unit), edgecolor="white", linewidth=0.5))
        inches = width * inches_per_second
        if inches > 0.07:
            axes.text(left + width / 2, 0.5, str(unit), ha="center", va="center", fontsize=6.5 if inches < 0.3 else 7.5,
                      rotation=90 if inches < 0.3 else 0, color="#1d2025", clip_on=True)  # fmt: skip
    axes.set(ylim=(0, 1), yticks=[])
    axes.set_ylabel(f"{name}\n{hertz:g} Hz", rotation=0, ha="right", va="center", fontsize=8)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _runs(units: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(unit, first frame, frame after the last) of each run of equal units."""
    values = np.asarray(units, dtype=np.int64)
    bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, end in pairwise(bounds):
        if end > start:
            yield int(values[start]), start, end


def unit_colour(unit: int) -> tuple[float, float, float]:
    """A light colour that differs strongly between neighbouring numbers (golden-ratio hues)."""
    hue = (unit * _GOLDEN) % 1.0
    return colorsys.hls_to_rgb(hue, 0.74 + 0.1 * ((unit * _GOLDEN * 7) % 1.0), 0.55)
