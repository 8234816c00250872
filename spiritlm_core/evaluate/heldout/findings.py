"""All figures of an evaluation, and the flat form in which metrics.json holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiritlm_core.evaluate.heldout.fewshot import RATES
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import Offered, Verdict

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
    """What an evaluation found; JSON-able through and through.

    Attributes:
        streams: Figures of :func:`~spiritlm_core.evaluate.heldout.losses.stream_metrics` by stream.
        fewshot: Figures of :meth:`~spiritlm_core.evaluate.heldout.fewshot.Task.figures` by task.
        statistics: :func:`~spiritlm_core.evaluate.heldout.statistics.corpus_statistics`.
        samples: Samples as dictionaries.
        verdicts: What the model does at the tasks that are offered to people.
    """

    streams: Mapping[str, Mapping[str, Any]]
    fewshot: Mapping[str, Mapping[str, Any]]
    statistics: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Verdict] = ()

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
