"""Multiple-choice questions in text, as JSON lines; and benchmarks that lm-eval knows by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.evaluate.suite import harness
from spiritlm_core.evaluate.suite.official import read_lines
from spiritlm_core.evaluate.suite.task import Bench, Skipped, SuiteTask, figure, usable
from spiritlm_core.lm.generate.likelihood import Judged, judged, log_likelihoods
from spiritlm_core.lm.generate.prompts import Parts
from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.tokens.counter import key_of

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

    def drawn(self, limit: int | None, seed: int) -> ChoiceTask:
        """With at most `limit` questions."""
        kept = {one.key for one in sorted(self.questions, key=lambda one: key_of(seed, self.name, one.key))[:limit]}
        return replace(self, questions=tuple(one for one in self.questions if one.key in kept))

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


def read_choices(name: str, folder: Path) -> list[ChoiceTask]:
    """The task of ``choices.jsonl``; nothing if there is none. Raises SourceError if it cannot be read."""
    path = folder / CHOICES
    if not path.is_file():
        return []
    questions, skipped = read_lines(path, _choice)
    return [ChoiceTask(name, CHOICES, folder, tuple(questions), skipped=tuple(skipped))]


def _choice(row: dict[str, Any], number: int) -> Choice:
    question, choices, answer = (row.get(field) for field in ("question", "choices", "answer"))
    if not isinstance(question, str) or not isinstance(choices, list) or len(choices) < 2:
        raise Rejection("question is a string, and choices is a list of at least two")
    if not all(isinstance(one, str) and one.strip() for one in choices):
        raise Rejection("a choice is empty, or no string")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise Rejection("answer is the place of the right one in choices, from 0")
    return Choice(str(row.get("id", number)), question, tuple(choices), answer)
