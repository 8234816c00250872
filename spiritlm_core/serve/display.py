"""Answers and conversations as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.lm.generate.content import SpeechSegment
from spiritlm_core.lm.generate.presets import Classification
from spiritlm_core.serve.guard import Kept
from spiritlm_core.serve.plot import Panel, figure, panel
from spiritlm_core.serve.replies import Reply
from spiritlm_core.serve.service import RequestHandler
from spiritlm_core.serve.turns import Turn

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
        silent = f"{reply.answer.empty}; try another seed, or a temperature above 0"
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
    return choice.label, gr.update(value=probabilities, visible=True), hidden, hidden, hidden, *_plot(panels)


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
