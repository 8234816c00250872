"""Answers and conversations as the page shows them, and pictures of speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate.content import SpeechSegment
from spiritlm_core.lm.generate.presets import Classification
from spiritlm_core.serve.guard import Kept
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.service import RequestHandler
from spiritlm_core.serve.turns import Turn

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
    """One stretch of speech."""

    title: str
    waveform: NDArray[np.float32]  # float32[samples] at 16 kHz
    units: NDArray[np.integer]  # int[units], one behind the other
    ends: NDArray[np.floating]  # where each ends, in seconds, float[units]


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


HIDDEN: Any = "hidden"  # on the page but not seen: what is not on it would not come back after a second False


def visible(shown: bool) -> Any:
    """Whether a component is seen."""
    return True if shown else HIDDEN


def conversation(turns: list[Turn]) -> tuple[list[Turn], list[dict[str, Any]]]:
    """The turns, and what is seen of them."""
    return turns, [turn.message() for turn in turns]


def title(example: dict[str, str]) -> str:
    """An example on the button that stands for it."""
    return f"▶ {example['text']}" if "audio" in example else example["text"]


def answer_turns(reply: Reply, kept: Kept) -> list[Turn]:
    """An answer as turns, so that the conversation goes on behind it; what is heard of it is kept."""
    shown = []
    for heard in reply.segments:
        if isinstance(heard.segment, SpeechSegment):
            file = None if heard.waveform is None else _wav(heard.waveform, kept)
            shown.append(Turn("assistant", file=file, tokens=heard.segment.tokens))
        else:
            shown.append(Turn("assistant", text=heard.segment.text))
    return shown


def answer(reply: Reply, panels: Sequence[Panel], kept: Kept) -> tuple[Any, ...]:
    """Text, label, sound, why there is none of it or nothing at all, tokens, and the picture of an answer."""
    texts = [h.segment.content for h in reply.segments if not isinstance(h.segment, SpeechSegment)]
    tokens = [h.segment.content for h in reply.segments if isinstance(h.segment, SpeechSegment)]
    silent = next((h.silent for h in reply.segments if h.silent and reply.waveform is None), None)
    if reply.answer.empty:
        again = "" if reply.answer.finish == "silence" else "; try another seed, or a temperature above 0"
        silent = f"{reply.answer.empty}{again}"
    heard = None if reply.waveform is None else _wav(reply.waveform, kept)
    return (
        "\n".join(texts),
        gr.update(visible=HIDDEN),
        gr.update(value=heard, visible=visible(heard is not None)),
        gr.update(value=sentence(silent or ""), visible=visible(silent is not None)),
        gr.update(value="\n".join(tokens), visible=visible(bool(tokens))),
        *_plot(panels),
    )


def label(choice: Classification, panels: Sequence[Panel]) -> tuple[Any, ...]:
    """The same for a label."""
    probabilities = dict(zip(choice.labels, choice.probabilities.tolist(), strict=True))
    hidden = gr.update(visible=HIDDEN)
    silent = gr.update(value=sentence(choice.empty or ""), visible=visible(choice.empty is not None))
    return choice.label, gr.update(value=probabilities, visible=True), hidden, silent, hidden, *_plot(panels)


def panels_of(handler: RequestHandler, reply: Reply | None = None) -> list[Panel]:
    """The last recording of the prompt, and the speech of the answer."""
    panels_shown = [panel("prompt", one.waveform, one.hubert) for one in handler.recordings[-1:]]
    for heard in reply.segments if reply else ():
        if isinstance(heard.segment, SpeechSegment) and heard.waveform is not None:
            units = heard.segment.units.hubert
            durations = handler.spirit.speech_tokenizer.vocoder.durations(units)
            panels_shown.append(panel("answer", heard.waveform, units, durations))
    return panels_shown


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _wav(waveform: Any, kept: Kept) -> str:
    return str(kept.add("answer.wav", encode_wav(waveform)))


def _plot(panels: Sequence[Panel]) -> tuple[Any, Any]:
    return gr.update(visible=visible(bool(panels))), figure(panels) if panels else None
