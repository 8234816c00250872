"""Classification by label likelihood, without and with solved examples (arXiv 2402.05755, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.evaluate.suite.labelled import Labelled, LabelTask, labels_by_turns
from spiritlm_core.evaluate.suite.likelihood import Judged, content_of, judged, log_likelihoods
from spiritlm_core.evaluate.suite.task import Bench, Skipped, figure, measure, summed_by
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.metrics.bootstrap import CONFIDENCE, Estimate, ratio
from spiritlm_core.tokens.counter import key_of

Parts = list[tuple[Kind, str]]


@dataclass(frozen=True)
class Question:
    """One example of which the label is asked.

    Attributes:
        row: the example.
        options: what is judged of each label.
        shots: solved examples in front of it; those that the context does not hold are left out.
    """

    row: Labelled
    options: tuple[Judged, ...]
    shots: int


def measure_labels(task: LabelTask, bench: Bench) -> Iterator[dict[str, Any]]:
    """Accuracy and macro-F1 of the likeliest label, in text and in speech, with and without solved examples."""
    for kind in task.kinds:
        for shots in sorted({0, bench.config.shots if task.train else 0}):
            direction = f"{'T' if kind == 'text' else 'S'}, {shots} shots"
            bench.tell(f"{task.name} {direction}")
            asked, skipped = questions(task, bench, kind, shots)
            yield _measure(task, bench, direction, asked, skipped)


def questions(task: LabelTask, bench: Bench, kind: Kind, shots: int) -> tuple[list[Question], list[Skipped]]:
    """Every test example with the labels behind it, and those that cannot be asked.

    In speech a question is the recording, and the label follows as text. In text it is ``Text: … Label:``.
    """
    asked, skipped = [], []
    for row in task.test:
        try:
            asked.append(_question(task, bench, kind, row, shots))
        except (Rejection, SpiritLMError) as problem:
            skipped.append(Skipped(row.key, str(problem)))
    return asked, skipped


def _question(task: LabelTask, bench: Bench, kind: Kind, row: Labelled, shots: int) -> Question:
    own = _parts(row, bench, kind)
    shown = _solved(task, bench, kind, row, shots)
    while True:
        parts = [*(part for solved in shown for part in solved), *own]
        try:
            options = tuple(judged(bench.spirit, parts, "text", label) for label in task.labels)
            return Question(row, options, len(shown))
        except Rejection:
            if not shown:
                raise
            shown.remove(max(shown, key=lambda solved: sum(len(content) for _, content in solved)))


def _solved(task: LabelTask, bench: Bench, kind: Kind, row: Labelled, shots: int) -> list[Parts]:
    """Solved examples drawn by the seed and the question, as many of each label as may be, in any order."""
    usable: list[tuple[str, Parts]] = []
    for shot in labels_by_turns(task.train, bench.config.seed, task.name, row.key) if shots else ():
        if len(usable) == shots:
            break
        try:
            usable.append((shot.key, [*_parts(shot, bench, kind), ("text", shot.label)]))
        except (Rejection, SpiritLMError):
            continue  # a recording that is no good helps nobody
    usable.sort(key=lambda pair: key_of(bench.config.seed, "order", row.key, pair[0]))
    return [parts for _, parts in usable]


def _parts(row: Labelled, bench: Bench, kind: Kind) -> Parts:
    content = content_of(bench.spirit.layout, row.side, kind, bench.heard)
    return [(kind, content if kind == "speech" else f"Text: {content} Label:")]


def _measure(
    task: LabelTask, bench: Bench, direction: str, asked: Sequence[Question], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    options = [option for question in asked for option in question.options]
    count, classes, items = len(asked), max(1, len(task.labels)), [question.row.item for question in asked]
    sums = log_likelihoods(bench.spirit, options, bench.batch_size).reshape(count, classes)
    tokens = np.array([len(option.answer) for option in options]).reshape(sums.shape)
    right = np.array([task.labels.index(question.row.label) for question in asked], int)
    given = {"sum": sums.argmax(1), "mean": (sums / tokens).argmax(1)} if asked else {}
    samples, seed = bench.config.bootstrap_samples, bench.config.seed
    most = float(np.bincount(right).max() / count) if count else 0.0
    figures = []
    for name in ("sum", "mean"):
        value = ratio(*summed_by(items, given.get(name, right) == right), samples=samples, seed=seed)
        figures.append(figure(f"accuracy, {name}", value, chance=1 / classes, trivial={"commonest label": most}))
    score = macro_f1(right, given.get("sum", right), classes, items, samples=samples, seed=seed)
    figures.append(figure("macro-F1, sum", score, trivial={"commonest label": 2 * most / (1 + most) / classes}))
    shots = float(np.mean([question.shots for question in asked])) if asked else None
    answers = {q.row.key: task.labels[i] for q, i in zip(asked, given.get("sum", ()), strict=True)}
    return measure(
        task, direction, count, figures, skipped, labels=list(task.labels), mean_shots=shots, answers=answers
    )


def macro_f1(
    right: np.ndarray, given: np.ndarray, classes: int, items: Sequence[str], *, samples: int, seed: int
) -> Estimate:
    """The mean of the F1 of all classes, with a percentile bootstrap over items.

    A class that occurs neither in the right answers nor in the given ones of a resample counts 0.

    Args:
        right: int[D] in 0 … classes - 1.
        given: the same of the answers.
        classes: how many there are.
        items: D of them; examples of one item are drawn together, ``""`` is an item of its own.
        samples: resamples.
        seed: of the resampling.
    """
    if not len(right):
        return Estimate(np.nan, np.nan, np.nan)
    true, said = np.eye(classes)[right], np.eye(classes)[given]
    both, either = (np.stack([summed_by(items, column)[0] for column in of.T], 1) for of in (true * said, true + said))
    drawn = np.random.default_rng(seed).multinomial(len(both), np.full(len(both), 1 / len(both)), size=samples)

    def score(weights: np.ndarray) -> np.ndarray:
        found: np.ndarray = (2 * (weights @ both) / np.maximum(weights @ either, 1)).mean(axis=-1)
        return found

    low, high = np.quantile(score(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(score(np.ones(len(both)))), float(low), float(high))
