"""Multiple-choice questions in text, as JSON lines; lm-eval asks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.reading import read_lines
from spiritlm_core.evaluate.suite.task import Bench, Skipped
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
class ChoiceTask:
    """A task of lm-eval made of `questions`, see :class:`spiritlm_core.evaluate.suite.task.SuiteTask`."""

    name: str
    layout: str
    folder: Path
    questions: tuple[Choice, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def entries(self) -> int:
        """How many questions it has."""
        return len(self.questions)

    def drawn(self, limit: int | None, seed: int) -> ChoiceTask:
        """With at most `limit` questions."""
        kept = {one.key for one in sorted(self.questions, key=lambda one: key_of(seed, self.name, one.key))[:limit]}
        return replace(self, questions=tuple(one for one in self.questions if one.key in kept))

    def recordings(self) -> list[Path]:
        """None."""
        return []

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Accuracy, as lm-eval counts it."""
        from spiritlm_core.evaluate.suite.harness import measure_choices

        return measure_choices(self, bench)


def read_choices(name: str, folder: Path) -> list[ChoiceTask]:
    """The task of ``choices.jsonl``; nothing if there is none. Raises SourceError if it cannot be read."""
    path = folder / CHOICES
    if not path.is_file():
        return []
    questions, skipped = read_lines(path, _choice)
    return [ChoiceTask(name, CHOICES, folder, tuple(questions), tuple(skipped))]


def _choice(row: dict[str, Any], number: int) -> Choice:
    question, choices, answer = (row.get(field) for field in ("question", "choices", "answer"))
    if not isinstance(question, str) or not isinstance(choices, list) or len(choices) < 2:
        raise Rejection("question is a string, and choices is a list of at least two")
    if not all(isinstance(one, str) and one.strip() for one in choices):
        raise Rejection("a choice is empty, or no string")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise Rejection("answer is the place of the right one in choices, from 0")
    return Choice(str(row.get("id", number)), question, tuple(choices), answer)
