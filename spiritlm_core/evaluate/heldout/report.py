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
from spiritlm_core.metrics.verdicts import OFFERS, WHO, Offered, Verdict
from spiritlm_core.speech.grid import rates_hz

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TASK_TITLES = {
    "speech_to_text": "Speech → text: word error rate",
    "text_to_speech": "Text → speech units: unit error rate",
}
_ANSWERS = {
    "model": "the model, greedy search",
    "shuffled": "the model's own answers, each given to the next question: what they are worth without their question",
    "random": "a random train utterance as the answer",
    "fixed": "the most common train transcript as every answer",
    "nothing": "an empty answer to every question",
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
    findings = content.findings
    facts = [f"{content.parameters / 1e6:,.1f} M parameters, context of {content.context_length} tokens"]
    facts += [f"Training ended {content.ended_early}"] if content.ended_early else []
    facts += [content.lineage["note"]] if "note" in content.lineage else []
    page: str = template("report.html.j2").render(
        title=content.title,
        subtitle=". ".join(facts),
        cards=_cards(findings),
        context_length=content.context_length,
        max_new_tokens=content.max_new_tokens,
        streams=findings.streams,
        charts={name: _image(figure) for name, figure in drawn.items()},
        **sections(content.answers, findings.verdicts),
        fewshot=[_task(name, figures) for name, figures in findings.fewshot.items()],
        samples=[_sample(sample, content) for sample in findings.samples],
        utterances=[_drawn(item) for item in content.drawn],
        corpus=_corpus(findings.statistics),
        rows=findings.statistics["rows"],
        judged_by="synthetic utterances" if findings.statistics["audio"]["held_out_synthetic"] else "recordings",
        shards=content.lineage.get("shards", {}),
        units=findings.statistics["units"],
        lineage=_lineage(content.lineage),
        metrics=findings.metrics(),
    )
    return page


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
    curves = {name: values for name, values in content.training.items() if any(v is not None for v in values)}
    if len(curves) > 1:
        parts["training"] = plots.training_curves(curves)
    if content.drawn:
        parts["words"] = _words(content.drawn[0])
    return parts


def _cards(findings: Findings) -> list[dict[str, str]]:
    audio, rows = findings.statistics["audio"], findings.statistics["rows"]
    synthetic = sum(audio["hours_synthetic"].values())
    made = f", of which {synthetic:.2f} h synthetic" if synthetic else ""
    cards = [
        {"value": f"{audio['hours']:.2f} h", "label": f"speech in {audio['utterances']:,} utterances{made}"},
        {"value": f"{rows['good']:,} of {rows['total']:,}", "label": "rows reached the model's data"},
    ]
    for name, figures in findings.streams.items():
        if "." not in name and figures["gain_bits"] is not None:
            gain = figures["gain_bits"]
            label = f"{name}: bits per token, {abs(gain):.2f} {'under' if gain > 0 else 'over'} the unigram baseline"
            cards.append({"value": f"{figures['bits_per_token']:.2f}", "label": label})
    return [*_first(findings), *cards]


def _first(findings: Findings) -> Iterator[dict[str, str]]:
    """The first figure of each task that is offered to people."""
    for task, title in OFFERS.items():
        if found := next((one for one in findings.verdicts if one.task == task), None):
            versus = f"{WHO[found.trivial_answer]}: {100 * found.trivial:.0f} %"
            yield {"value": f"{100 * found.value:.0f} %", "label": f"{title}: {found.measure}; {versus}"}


def _task(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    rates = {who: {**rate, "note": _ANSWERS[who]} for who, rate in figures["rates"].items()}
    chart = _image(plots.fewshot_bars(_TASK_TITLES[name], rates))
    item = "words" if name == "speech_to_text" else "units"
    verdict = {"title": _TASK_TITLES[name], "best": WHO[figures["best_trivial"]]}
    return {**figures, **verdict, "rates": rates, "chart": chart, "item": item}


def _sample(sample: Mapping[str, Any], content: Content) -> dict[str, Any]:
    flac, spoken = content.recordings.get(sample["key"]), content.spoken.get(sample["key"])
    rate = sample["error_rate"]
    return {
        **sample,
        "prompt_is_units": sample["kind"] != "text_to_speech",
        "output_is_units": sample["kind"] != "speech_to_text",
        "score": "" if rate is None else f"{100 * rate:.0f} % errors",
        "audio": data_uri(flac, "audio/flac") if flac else "",
        "spoken": data_uri(spoken, "audio/flac") if spoken and sample["kind"] == "text_to_speech" else "",
    }


def _drawn(item: Drawn) -> dict[str, str]:
    return {"text": item.text or item.key, "chart": _image(_words(item)), "audio": data_uri(item.flac, "audio/flac")}


def _words(item: Drawn) -> Figure:
    rates = rates_hz(len(item.units.get("hubert", ())), len(item.waveform))
    units = {name: (stream, rates[name]) for name, stream in item.units.items()}
    return plots.utterance(item.waveform, item.words, units, SAMPLE_RATE)


def _corpus(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    audio, words, tokens = statistics["audio"], statistics["words"], statistics["tokens"]
    rows = [("hours of speech", f"{audio['hours']:.2f}")]
    rows += [(f"hours, {name.replace('_', ' ')}", f"{hours:.2f}") for name, hours in audio["hours_by_split"].items()]
    rows += [(f"hours, language {name}", f"{hours:.2f}") for name, hours in audio["hours_by_language"].items()]
    rows += [(f"hours, synthetic ({name})", f"{hours:.2f}") for name, hours in audio["hours_synthetic"].items()]
    rows += [(name, f"{audio[name]:,}") for name in ("utterances", "recordings")]
    rows += [("known speakers", f"{audio['speakers']:,}")]
    rows += [
        ("words", f"{words['words']:,}"),
        ("distinct words", f"{words['distinct']:,}"),
        ("interpolated words", f"{words['interpolated']:,} ({100 * words['interpolated_share']:.2f} %)"),
    ]
    rows += [(f"utterances with text {name}", f"{count:,}") for name, count in words["utterances_by_origin"].items()]
    rows += [
        ("text tokens", f"{tokens['text']:,}"),
        ("speech tokens", f"{tokens['speech']:,}"),
        ("speech tokens per second", f"{tokens['speech_per_second']:.1f}"),
        ("utterances without timed words", f"{tokens['speech_only_utterances']:,}"),
    ]
    return rows


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


def sections(answers: Answers, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The values of the three sections, by name."""
    rows = answers.to_dict()
    listened = {one.clip.key: one for one in answers.listening.clips}
    players = {key: _sound(one, RECORDING) for key, one in [*listened.items()][:PLAYERS]}
    heard = [{**row, "sound": players.get(row["key"])} for row in rows.get("speech_to_text", ())]
    classified = answers.classified
    return {
        "heard": {"verdicts": _shown(verdicts, "transcribe"), "rows": heard},
        "said": {
            "verdicts": _shown(verdicts, "say"),
            "players": [_player(one) for one in answers.listening.clips[:PLAYERS] if RESYNTHESIS in one.sounds],
            "notes": answers.listening.notes,
        },
        "classified": {
            "verdicts": _shown(verdicts, "classify"),
            "labels": classified.labels if classified else (),
            "confusions": classified.confusions() if classified else (),
        },
    }


def _shown(verdicts: Sequence[Verdict], task: Offered) -> list[dict[str, Any]]:
    """Rows of a table of figures, those without solved examples."""
    return [
        {
            "group": one.group or "all",
            "verdict": one,
            "trivial": WHO.get(one.trivial_answer, one.trivial_answer),
            "beside": [(WHO.get(who, who), rate) for who, rate in one.beside.items()],
        }
        for one in verdicts
        if one.task == task and not one.shots
    ]


def _player(one: Listened) -> dict[str, Any]:
    """The sounds of one utterance; one that cannot be heard says so."""
    names = [name for name in _SOUNDS if name in one.sounds or name in one.heard]
    sounds = [{"about": _SOUNDS[name], "url": _sound(one, name), "heard": one.heard.get(name)} for name in names]
    return {"text": one.clip.text or one.clip.key, "sounds": sounds}


def _sound(one: Listened, name: str) -> str | None:
    return data_uri(encode_flac(one.sounds[name]), "audio/flac") if name in one.sounds else None
