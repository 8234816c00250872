"""The report: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.evaluate import plots
from spiritlm_core.evaluate.heldout.asked import ANSWER, RECORDING, RESYNTHESIS, Answers, Listened
from spiritlm_core.evaluate.heldout.findings import Findings
from spiritlm_core.evaluate.rendering import data_uri, template
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.metrics.verdicts import OFFERS, WHO
from spiritlm_core.speech.grid import rates_hz

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TASK_TITLES = {
    "speech_to_text": "Speech → text: word error rate",
    "text_to_speech": "Text → speech units: unit error rate",
}


@dataclass(frozen=True)
class Drawn:
    """One utterance to be drawn: waveform float32[T] at 16 kHz, its FLAC, words rows and raw unit streams."""

    key: str
    text: str
    waveform: np.ndarray
    flac: bytes
    words: Sequence[Mapping[str, Any]]
    units: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Content:
    """All that the report shows."""

    title: str  # headline
    findings: Findings  # the figures
    answers: Answers  # what the model was asked and answered
    drawn: Sequence[Drawn]  # utterances for the figures of words and units
    recordings: Mapping[str, bytes]  # FLAC of the samples by utterance_id
    spoken: Mapping[str, bytes]  # FLAC of what the vocoder makes of the spoken answers among them
    # "step" and nats per token of each stream, for the training curves; may be empty
    training: Mapping[str, Sequence[float | None]]
    # headings with what they hold, JSON-able; "shards", if there, maps a stage to its number of shards
    lineage: Mapping[str, Any]
    parameters: int  # number of weights of the model
    context_length: int  # of the model, in tokens
    max_new_tokens: int  # longest few-shot answer
    ended_early: str | None = None  # how training ended before its last step, if it did


def render(content: Content, drawn: Mapping[str, Figure]) -> str:
    """The page, with the :func:`charts` drawn before. The same content gives the same bytes.

    All text is escaped by the template engine.
    """
    findings, listened = content.findings, content.answers.listening.clips[:PLAYERS]
    facts = [f"{content.parameters / 1e6:,.1f} M parameters, context of {content.context_length} tokens"]
    facts += [f"Training ended {content.ended_early}"] if content.ended_early else []
    facts += [content.lineage["note"]] if "note" in content.lineage else []
    return template("report.html.j2").render(
        vars(findings) | vars(content),
        subtitle=". ".join(facts),
        cards=list(_first(findings)),
        charts={name: _image(figure) for name, figure in drawn.items()},
        verdicts=[one for one in findings.verdicts if not one.shots],
        who=WHO,
        heard=content.answers.to_dict().get("speech_to_text", ()),
        sounds={one.clip.key: _sound(one, RECORDING) for one in listened},
        players=[_player(one) for one in listened if RESYNTHESIS in one.sounds],
        notes=content.answers.listening.notes,
        classified=content.answers.classified,
        fewshot=[_task(name, figures) for name, figures in findings.fewshot.items()],
        recordings={key: data_uri(flac, "audio/flac") for key, flac in content.recordings.items()},
        spoken={key: data_uri(flac, "audio/flac") for key, flac in content.spoken.items()},
        utterances=[_drawn(item) for item in content.drawn],
        judged_by="synthetic utterances" if findings.statistics["audio"]["held_out_synthetic"] else "recordings",
        shards=content.lineage.get("shards", {}),
        lineage=_lineage(content.lineage),
        metrics=findings.metrics(),
    )


def _image(figure: Figure) -> str:
    return data_uri(plots.svg(figure), "image/svg+xml")


def charts(content: Content) -> dict[str, Figure]:
    """The charts of the whole run by name; "training" and "words" only where there is something to draw."""
    findings = content.findings
    audio = findings.statistics["audio"]
    parts = {
        "streams": plots.stream_bars(findings.streams),
        "durations": plots.duration_histogram(audio["duration_edges"], audio["duration_counts"]),
        "codebook": plots.codebook(findings.statistics["units"]),
    }
    if len(content.training) > 1:
        parts["training"] = plots.training_curves(content.training)
    if content.drawn:
        parts["words"] = _words(content.drawn[0])
    return parts


def _first(findings: Findings) -> Iterator[dict[str, str]]:
    """The first figure of each task that is offered to people."""
    for task, title in OFFERS.items():
        if found := next((one for one in findings.verdicts if one.task == task), None):
            versus = f"{WHO[found.trivial_answer]}: {100 * found.trivial:.0f} %"
            yield {"value": f"{100 * found.value:.0f} %", "label": f"{title}: {found.measure}; {versus}"}


def _task(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    title = _TASK_TITLES[name]
    return {**figures, "name": name, "title": title, "chart": _image(plots.fewshot_bars(title, figures["rates"]))}


def _drawn(item: Drawn) -> dict[str, str]:
    return {"text": item.text or item.key, "chart": _image(_words(item)), "audio": data_uri(item.flac, "audio/flac")}


def _words(item: Drawn) -> Figure:
    rates = rates_hz(len(item.units.get("hubert", ())), len(item.waveform))
    units = {name: (stream, rates[name]) for name, stream in item.units.items()}
    return plots.utterance(item.waveform, item.words, units, SAMPLE_RATE)


def _lineage(lineage: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings with their entries; `lineage` maps a heading to a single value or to a mapping of any depth."""
    sections = [(heading.replace("_", " "), list(_entries(value, ""))) for heading, value in lineage.items()]
    return sections or [("not given", [])]


def _entries(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _entries(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


PLAYERS = 6  # utterances that can be listened to in the report
_SOUNDS = {
    RECORDING: "the recording",
    RESYNTHESIS: "resynthesis: the recording's own units through the vocoder",
    ANSWER: "the model says the text, and the vocoder makes it audible",
}


def _player(one: Listened) -> dict[str, Any]:
    """The sounds of one utterance; one that cannot be heard says so."""
    names = [name for name in _SOUNDS if name in one.sounds or name in one.heard]
    sounds = [{"about": _SOUNDS[name], "url": _sound(one, name), "heard": one.heard.get(name)} for name in names]
    return {"text": one.clip.text or one.clip.key, "sounds": sounds}


def _sound(one: Listened, name: str) -> str | None:
    return data_uri(encode_flac(one.sounds[name]), "audio/flac") if name in one.sounds else None
