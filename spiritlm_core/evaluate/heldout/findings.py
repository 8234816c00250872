"""What an evaluation found: its figures, their flat form in metrics.json, and sample outputs of the model."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.evaluate.heldout.fewshot import RATES, Task
from spiritlm_core.evaluate.heldout.losses import kinds
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import Offered, Verdict
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.vocabulary import Vocabulary

_WORDS = 3  # fewer are no good example

_TITLES = {
    "speech_to_text": "speech → text",
    "text_to_speech": "text → speech units",
    "interleaved": "interleaved continuation",
}


@dataclass(frozen=True)
class Sample:
    """One prompt, what the model made of it, and what a human said."""

    kind: str  # "speech_to_text", "text_to_speech" or "interleaved"
    key: str  # utterance_id, or recording_id of an interleaved sample
    shots: int  # solved examples in front of the prompt; not part of `prompt`
    prompt: str  # text, or speech tokens such as ``[Hu3][Pi7]``
    output: str  # the model's answer in the same notation
    reference: str  # what was really said or recorded there
    text: str  # transcript of the utterance; empty for an interleaved sample
    error_rate: float | None  # of the output against the reference; None for an interleaved sample

    @property
    def title(self) -> str:
        """The kind in words."""
        return _TITLES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "title": self.title}


def task_samples(task: Task, count: int, evaluated: Evaluated) -> list[Sample]:
    """The first `count` questions of a task, those of three words and more before others; their order is random."""
    order = sorted(range(len(task.questions)), key=lambda i: len(task.questions[i].words.split()) < _WORDS)
    return [_task_sample(task, i, evaluated) for i in order[:count]]


def _task_sample(task: Task, i: int, evaluated: Evaluated) -> Sample:
    target, errors = task.questions[i], task.rates["model"]
    speech = evaluated.speech(target.speech_ids)
    prompt, reference = (speech, target.text) if task.name == "speech_to_text" else (target.text, speech)
    return Sample(
        kind=task.name,
        key=target.key,
        shots=task.shots[i],
        prompt=prompt,
        output=task.answers[i],
        reference=reference,
        text=target.text,
        error_rate=round(errors.edits[i] / errors.length[i], 4) if errors.length[i] else None,
    )


def choose_documents(documents: Sequence[Document], count: int, vocabulary: Vocabulary) -> list[Document]:
    """The first `count` documents, those with some of both modalities before others."""

    def poor(document: Document) -> bool:
        counts = Counter(kinds(document.ids, vocabulary).tolist())
        return min(counts["text"] / _WORDS, counts["speech"] / (5 * _WORDS)) < 1

    return sorted((document for document in documents if len(document.ids) > _WORDS), key=poor)[:count]


def interleaved_sample(key: str, ids: np.ndarray, evaluated: Evaluated, most: int) -> Sample:
    """Cut one interleaved document, int[N], at the modality change nearest to its middle and let the model go on."""
    from spiritlm_core.lm.generate.decode import generate

    cut = _cut(ids, evaluated.vocabulary)
    spirit = evaluated.spirit
    (output,) = generate(spirit.model, spirit.vocabulary, [ids[:cut].tolist()], modality="any", max_new_tokens=most)
    prompt, answer, reference = (evaluated.render(part).strip() for part in (ids[:cut], output, ids[cut : cut + most]))
    return Sample("interleaved", key, 0, prompt, answer, reference, text="", error_rate=None)


def _cut(ids: np.ndarray, vocabulary: Vocabulary) -> int:
    switches = np.flatnonzero(np.isin(ids, (vocabulary.text_marker, vocabulary.speech_marker)))
    switches = switches[switches > 1]  # BOS and the first marker are no prompt
    middle = len(ids) // 2
    return int(min(switches, key=lambda at: abs(at - middle))) if len(switches) else max(middle, 1)


def lines(samples: Sequence[dict[str, Any]], width: int = 96) -> list[str]:
    """Samples (as in samples.json) as short lines for a terminal, long ones cut in the middle."""
    tags: list[str] = []
    for sample in samples:
        shots = f" ({sample['shots']} shots)" if sample["shots"] else ""
        tags.append(f"{sample['title']}{shots}")
        tags += [
            f"  {name:<10}{_cut_text(sample[key], width)}"
            for name, key in (("prompt", "prompt"), ("model", "output"), ("reference", "reference"))
        ]
        if sample["error_rate"] is not None:
            name = RATES[sample["kind"]].replace("_", " ")
            tags.append(f"  {name}: {100 * sample['error_rate']:.0f} %")
    return tags


def _cut_text(text: str, width: int) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())  # no control codes in a terminal
    if not text:
        return "(nothing)"
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[:half]} … {text[-half:]}"


_CORPUS = {
    "audio": ("hours", "utterances", "recordings", "speakers"),
    "words": ("words", "interpolated", "interpolated_share"),
    "tokens": ("text", "speech", "speech_per_second", "speech_only_utterances"),
    "rows": ("total", "good"),
}
_UNITS = ("frames", "used", "perplexity", "repeats")
_SECTIONS: dict[Offered, str] = {"transcribe": "heard", "say": "said", "classify": "classified"}
_COUNTS = ("beats_trivial", "utterances", "held_out", "mean_shots", "empty", "mean_answer", "mean_reference")


@dataclass(frozen=True)
class Findings:
    """What an evaluation found; JSON-able through and through."""

    # figures of `stream_metrics` by stream
    streams: Mapping[str, Mapping[str, Any]]
    # figures of `figures` by task
    fewshot: Mapping[str, Mapping[str, Any]]
    statistics: Mapping[str, Any]  # `corpus_statistics`
    samples: Sequence[Mapping[str, Any]]  # samples as dictionaries
    verdicts: Sequence[Verdict] = ()  # what the model does at the tasks that are offered to people

    def metrics(self) -> dict[str, Any]:
        """Flat keys such as ``loss/text/bits_per_token``; docs/evaluation.md lists them."""
        return dict(self._entries())

    def _entries(self) -> Iterator[tuple[str, Any]]:
        for stream, figures in self.streams.items():
            yield from ((f"loss/{stream}/{name}", value) for name, value in figures.items())
        for task, figures in self.fewshot.items():
            yield from ((f"fewshot/{task}/{name}", figures[name]) for name in _COUNTS)
            for who, rate in figures["rates"].items():
                name = RATES[task] if who == "model" else f"{who}_{RATES[task]}"
                yield from ((f"fewshot/{task}/{key.replace('rate', name, 1)}", value) for key, value in rate.items())
        for verdict in self.verdicts:
            if not verdict.shots:
                yield from _verdict_entries(verdict)
        yield from self._corpus()

    def _corpus(self) -> Iterator[tuple[str, Any]]:
        for part, names in _CORPUS.items():
            yield from ((f"corpus/{part}/{name}", self.statistics[part][name]) for name in names)
        for stream, figures in self.statistics["units"].items():
            yield from ((f"corpus/units/{stream}/{name}", figures[name]) for name in _UNITS)

    def summary(self) -> dict[str, Any]:
        """The few figures worth a line each: bits and gain per stream, and the few-shot error rates."""
        wanted = [
            f"loss/{name}/{key}" for name in self.streams for key in ("bits_per_token", "gain_bits", "beats_baseline")
        ]
        wanted += [f"fewshot/{task}/{RATES[task]}" for task in self.fewshot]
        metrics = self.metrics()
        plain = [one for one in self.verdicts if not (one.shots or one.group)]
        wanted += [f"{_SECTIONS[one.task]}/{_short(one)}" for one in plain]
        return {key: metrics[key] for key in wanted}


def _verdict_entries(verdict: Verdict) -> Iterator[tuple[str, Any]]:
    place = "/".join(filter(None, (_SECTIONS[verdict.task], verdict.group.replace(" ", "_"))))
    name = _short(verdict)
    yield from Estimate(verdict.value, verdict.low, verdict.high).to_dict(f"{place}/{name}").items()
    yield f"{place}/{verdict.trivial_answer}_{name}", verdict.trivial
    yield from ((f"{place}/{who}_{name}", rate) for who, rate in verdict.beside.items())
    yield f"{place}/{name}_beats_trivial", verdict.better
    yield f"{place}/{name}_utterances", verdict.items


def _short(verdict: Verdict) -> str:
    return "wer" if verdict.measure.startswith("word error rate") else verdict.measure.replace(" ", "_")
