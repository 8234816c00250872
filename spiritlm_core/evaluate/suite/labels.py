"""Classification by label likelihood, without and with solved examples (arXiv 2402.05755, section 4.2); and choices.

Multiple-choice questions come in text, as JSON lines; so do benchmarks that lm-eval knows by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.evaluate.suite import harness
from spiritlm_core.evaluate.suite.pairs import Labelled, LabelledTask, content_of
from spiritlm_core.evaluate.suite.task import Bench, Skipped, SuiteTask, figure, summed_by, usable
from spiritlm_core.lm.generate.fewshot import Asked, FewShot, Judged, draw_shots, judged, log_likelihoods
from spiritlm_core.lm.generate.prompts import Example, Kind, Parts
from spiritlm_core.metrics.bootstrap import CONFIDENCE, Estimate, ratio


@dataclass(frozen=True)
class LabelTask(LabelledTask):
    """Which label is right."""

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Accuracy and macro-F1 of the likeliest label, in text and in speech, with and without solved examples."""
        for kind in self.kinds:
            for shots in sorted({0, bench.config.shots if self.train else 0}):
                direction = f"{'T' if kind == 'text' else 'S'}, {shots} shots"
                bench.tell(f"{self.name} {direction}")
                asked, skipped = questions(self, bench, kind, shots)
                yield _measure(self, bench, direction, asked, skipped)


def questions(task: LabelTask, bench: Bench, kind: Kind, shots: int) -> tuple[dict[Labelled, Asked], list[Skipped]]:
    """Every test example with the labels behind it, and those that cannot be asked.

    In speech a question is the recording, and the label follows as text. In text it is ``Text: … Label:``.
    """
    fewshot = FewShot(bench.spirit, kind, "text", task.labels)
    train = task.train if shots else ()
    pool, _ = usable(train, lambda row: Example(_parts(row, bench, kind), (("text", row.label),)))
    draw = partial(draw_shots, [*pool], key=attrgetter("key"), said=attrgetter("label"), balanced=True)

    def question(row: Labelled) -> Asked:
        solved = [pool[shot] for shot in draw(row, shots, bench.config.seed)]
        return fewshot.lay_out(_parts(row, bench, kind), solved)

    return usable(task.test, question)


def _parts(row: Labelled, bench: Bench, kind: Kind) -> Parts:
    content = content_of(bench.spirit.layout, row.side, kind, bench.heard)
    return ((kind, content if kind == "speech" else f"Text: {content} Label:"),)


def _measure(
    task: LabelTask, bench: Bench, direction: str, asked: Mapping[Labelled, Asked], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    options = [option for question in asked.values() for option in question.options]
    count, classes, items = len(asked), max(1, len(task.labels)), [row.item for row in asked]
    sums = log_likelihoods(bench.spirit, options).reshape(count, classes)
    tokens = np.array([len(option.answer) for option in options]).reshape(sums.shape)
    right = np.array([task.labels.index(row.label) for row in asked], int)
    given = {"sum": sums.argmax(1), "mean": (sums / tokens).argmax(1)} if asked else {}
    most = float(np.bincount(right).max() / count) if count else 0.0
    figures = []
    for name in ("sum", "mean"):
        value = ratio(*summed_by(items, given.get(name, right) == right), **bench.draws)
        figures.append(figure(f"accuracy, {name}", value, chance=1 / classes, trivial={"commonest label": most}))
    score = macro_f1(right, given.get("sum", right), classes, items, **bench.draws)
    figures.append(figure("macro-F1, sum", score, trivial={"commonest label": 2 * most / (1 + most) / classes}))
    shots = float(np.mean([question.shots for question in asked.values()])) if asked else None
    answers = {row.key: task.labels[i] for row, i in zip(asked, given.get("sum", ()), strict=True)}
    offered = {"offered": "classify"} if direction.startswith("S") else {}
    about = {"labels": list(task.labels), "mean_shots": shots, "answers": answers, **offered}
    return task.measure(direction, count, figures, skipped, **about)


def macro_f1(
    right: np.ndarray, given: np.ndarray, classes: int, items: Sequence[str], *, samples: int, seed: int
) -> Estimate:
    """The mean of the F1 of all classes, with a percentile bootstrap over items.

    A class that occurs neither in the right answers nor in the given ones of a resample counts 0. Both answers are
    int[D] in 0 … classes - 1; examples of one of the D `items` are drawn together, ``""`` is an item of its own.
    """
    if not len(right):
        return Estimate(np.nan, np.nan, np.nan)
    true, said = np.eye(classes)[right], np.eye(classes)[given]
    both, either = (np.stack([summed_by(items, column)[0] for column in of.T], 1) for of in (true * said, true + said))
    drawn = np.random.default_rng(seed).multinomial(len(both), np.full(len(both), 1 / len(both)), size=samples)

    def score(weights: np.ndarray) -> np.ndarray:
        return (2 * (weights @ both) / np.maximum(weights @ either, 1)).mean(axis=-1)

    low, high = np.quantile(score(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(score(np.ones(len(both)))), float(low), float(high))


CHOICES = "choices.jsonl"


@dataclass(frozen=True)
class Choice:
    """A question, what may be answered, and the place of the right answer."""

    key: str
    question: str
    choices: tuple[str, ...]
    answer: int

    def to_dict(self) -> dict[str, Any]:
        """A line of the file."""
        return {"id": self.key, "question": self.question, "choices": list(self.choices), "answer": self.answer}


@dataclass(frozen=True)
class ChoiceTask(SuiteTask):
    """A task made of `questions`."""

    counted: ClassVar[str] = "questions"
    questions: tuple[Choice, ...] = ()

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Accuracy of the likeliest choice behind its question: ``acc`` by sums, ``acc_norm`` by sums per character."""
        bench.tell(f"{self.name} T")
        asked, skipped = self._asked(bench)
        sums = iter(log_likelihoods(bench.spirit, [option for options in asked.values() for option in options]))
        right: dict[str, list[bool]] = {"acc": [], "acc_norm": []}
        for one, options in asked.items():
            own = np.array([next(sums) for _ in options])
            right["acc"].append(int(own.argmax()) == one.answer)
            right["acc_norm"].append(int((own / [len(choice) for choice in one.choices]).argmax()) == one.answer)
        chance = float(np.mean([1 / len(one.choices) for one in asked])) if asked else None
        accuracies = {name: ratio(values, [1] * len(values), **bench.draws) for name, values in right.items()}
        figures = [figure(name, accuracy, chance=chance) for name, accuracy in accuracies.items()]
        yield self.measure("T", len(asked), figures if asked else (), skipped)

    def _asked(self, bench: Bench) -> tuple[dict[Choice, list[Judged]], list[Skipped]]:
        """What is judged of each choice, and the questions that are too long."""

        def options(one: Choice) -> list[Judged]:
            question: Parts = (("text", one.question),)
            return [judged(bench.spirit, question, "text", choice) for choice in one.choices]

        return usable(self.questions, options)


@dataclass(frozen=True)
class NamedTask(SuiteTask):
    """A task, or a group of tasks, that lm-eval knows by name; it fetches their data from the hub."""

    manager: Any = None
    limit: int | None = None

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Every metric. Raises SpiritLMError if lm-eval cannot fetch the data, or run it."""
        bench.tell(f"lm-eval: {self.name}")
        try:
            results = harness.run(bench, [self.name], self.manager, limit=self.limit)
        except (OSError, ValueError, RuntimeError) as error:
            raise SpiritLMError(f"lm-eval cannot run {self.name}: {error}") from error
        leaves = harness.leaves(self.name, results)
        items = sum(len(results["samples"].get(leaf, ())) for leaf in leaves)
        parts = {leaf: harness.plain(results["results"][leaf]) for leaf in leaves if leaf != self.name}
        yield self.measure("T", items, harness.figures(self.name, results, bench), (), subtasks=parts)


def named_tasks(config: SuiteConfig) -> list[NamedTask]:
    """The tasks of lm-eval that are asked for by name; one by one, as lm-eval refuses a group beside a task of it.

    Raises SpiritLMError: lm-eval is not installed, or knows no such task or group.
    """
    if not config.lm_eval:
        return []
    manager = harness.task_manager(config.lm_eval)
    return [NamedTask(name, "lm-eval", Path(), manager, config.lm_eval_limit) for name in config.lm_eval]
