"""Whether a model does better at a task than answers that need no model: ``verdicts.json``, and how it is put in words.

The evaluation writes the file, publishing adds what the suite found, and whoever offers the task tells people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json, write_json
from spiritlm_core.metrics.bootstrap import Estimate, ratio
from spiritlm_core.metrics.distances import Errors

FILE = "verdicts.json"
EXAMPLES = "examples/examples.jsonl"  # recordings to try a model with, as solved examples of the command line
Offered = Literal["transcribe", "say", "classify"]

OFFERS: dict[Offered, str] = {"transcribe": "what it heard", "say": "what it said", "classify": "how it classifies"}
"""Task → its title in reports."""

WHO = {
    "nothing": "empty answers",
    "shuffled": "its answers to other questions",
    "random": "random training examples",
    "fixed": "the commonest training text",
    "majority": "always the commonest label",
    "chance": "guessing evenly",
    "recogniser": "an independent recogniser",
    "resynthesis": "resynthesis of the recordings",
    "recordings": "the recordings themselves",
}
"""Whose figure is put beside that of a model → what that is called."""


FEWEST = 5
"""Items without which nothing is shown: of fewer, all are better by chance more often than once in 20 (2^-5 = 0.03)."""


@dataclass(frozen=True)
class Verdict:
    """One figure of a model at a task, beside the best answers that need no model."""

    task: Offered  # what people know the task as
    measure: str  # what the figure is, such as "word error rate"
    on: str  # what it was measured on, such as "held-out recordings"
    items: int  # how many of those
    value: float  # the figure as a share; `low` and `high` are its 95 % interval
    low: float
    high: float
    trivial: float  # what the best of the trivial answers reaches
    trivial_answer: str  # which that is, a key of `WHO`
    better: bool  # whether the model is better than all trivial answers, beyond chance
    shots: int = 0  # solved examples in front of each question
    group: str = ""  # which part of the material the figure is of; "" is all of it
    beside: Mapping[str, float] = field(default_factory=dict)  # the same figure of others, by keys of `WHO`
    labels: Sequence[str] = ()  # the labels that were chosen from, of a classification

    @classmethod
    def of(cls, task: Offered, measure: str, estimate: Estimate, trivials: Mapping[str, float], **more: Any) -> Verdict:
        """A figure with its interval beside the best of `trivials`: the greatest accuracy, the least error rate."""
        best = (max if measure == "accuracy" else min)(trivials, key=trivials.__getitem__)
        value, low, high = (round(share, 4) for share in (estimate.value, estimate.low, estimate.high))
        trivial = round(trivials[best], 4)
        more["better"] = more["better"] and more["items"] >= FEWEST
        return cls(task, measure, value=value, low=low, high=high, trivial=trivial, trivial_answer=best, **more)

    @classmethod
    def of_errors(
        cls, task: Offered, measure: str, rates: Mapping[str, Errors], samples: int, seed: int, **more: Any
    ) -> Verdict:
        """The error rate of "model" beside those of the others of `rates`, over the same utterances."""
        trivials = {who: errors.rate for who, errors in rates.items() if who != "model"}
        model, better = rates["model"], beats_trivial(rates, samples, seed)
        estimate, items = model.estimate(samples, seed), len(model.edits)
        return cls.of(task, measure, estimate, trivials, better=better, items=items, **more)

    @property
    def figure(self) -> str:
        """The figure in words, with its interval and what it is beside."""
        trivial = (
            f"best trivial answer {100 * self.trivial:.0f} % ({WHO.get(self.trivial_answer, self.trivial_answer)})"
        )
        beside = "".join(f", {WHO.get(who, who)} {100 * rate:.0f} %" for who, rate in self.beside.items())
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}], {trivial}{beside}"


def beats_trivial(rates: Mapping[str, Errors], samples: int, seed: int) -> bool:
    """Whether "model" makes fewer errors than each of the others, utterance by utterance, beyond chance."""
    model = np.array(rates["model"].edits)
    gains = [np.array(errors.edits) - model for who, errors in rates.items() if who != "model"]
    lengths = rates["model"].length
    return all(ratio(gain, lengths, samples=samples, seed=seed).low > 0 for gain in gains)


def read_verdicts(folder: Path) -> list[Verdict]:
    """Those of a model's folder; none where nobody has judged it. Raises ModelReferenceError if that is damaged."""
    path, known = folder / FILE, {one.name for one in fields(Verdict)}
    if not path.is_file():
        return []
    try:
        rows = read_json(path)["verdicts"]
        return [Verdict(**{name: value for name, value in row.items() if name in known}) for row in rows]
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelReferenceError(f"{path}: not what an evaluation writes: {error}") from error


def read_languages(folder: Path) -> tuple[str, ...]:
    """Codes of the languages that a model was taught, by its ``statistics.json``; none where it says none.

    Raises ModelReferenceError: the file is damaged.
    """
    path = folder / "statistics.json"
    hours = read_json(path).get("audio", {}).get("hours_by_language", {}) if path.is_file() else {}
    return tuple(language for language in hours if language != "unknown")


def read_examples(folder: Path) -> list[dict[str, str]]:
    """The recordings in a model's folder to try it with: `audio`, a path, and `text`; none where there are none.

    Raises ModelReferenceError: the list of them is damaged.
    """
    path = folder / EXAMPLES
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        return [{"audio": str(path.parent / Path(row["audio"]).name), "text": row["text"]} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelReferenceError(f"{path}: not what an evaluation writes: {error}") from error


def write_verdicts(folder: Path, verdicts: Iterable[Verdict]) -> None:
    """Put ``verdicts.json`` into `folder`."""
    write_json(folder / FILE, {"verdicts": [asdict(verdict) for verdict in verdicts]})


def doubt(verdicts: Iterable[Verdict], task: str, *, shots: bool = False) -> str | None:
    """A sentence where a model was judged at `task` and is not shown to be better than trivial answers; else None.

    The first figure counts: of those with solved examples in front where there are `shots`, else of those without; of
    all where there are none of these.
    """
    judged = [verdict for verdict in verdicts if verdict.task == task]
    alike = [verdict for verdict in judged if (verdict.shots > 0) == shots] or judged
    whole = [verdict for verdict in alike if not verdict.group]
    if not whole or whole[0].better:
        return None
    first, able = whole[0], [verdict.group for verdict in alike if verdict.group and verdict.better]
    but = f" Better only for: {', '.join(able)}." if able else ""
    return (
        f"This model is not shown to {task} better than trivial answers do: {first.measure} {first.figure} "
        f"({first.items} {first.on}).{but}"
    )


def told(verdicts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines for a terminal: what a model heard, said and classified without solved examples, as in the file."""
    shown = [Verdict(**one) for one in verdicts if not one["shots"]]
    for (task, measure, on), alike in groupby(shown, key=lambda one: (one.task, one.measure, one.on)):
        yield f"{OFFERS[task]} ({measure} on {on}, with 95 % interval):"
        for one in alike:
            verdict = "better than trivial" if one.better else "not shown to be better than trivial"
            yield f"  {one.items:>4} {one.group or 'all':<26} {one.figure}: {verdict}"


def given_labels(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """The labels that a model was judged with; none if it was not."""
    return next((tuple(verdict.labels) for verdict in verdicts if verdict.task == "classify" and verdict.labels), ())
