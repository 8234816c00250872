"""Labelled texts and recordings, and what tasks made of them have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from spiritlm_core.evaluate.suite.pairs import Side
from spiritlm_core.evaluate.suite.task import SuiteTask
from spiritlm_core.lm.generate.fewshot import by_turns
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.tokens.counter import key_of

_POOL = 16  # train rows of each label that solved examples are drawn from, and judges are fitted on


@dataclass(frozen=True)
class Labelled:
    """A labelled text, recording, or both.

    Attributes:
        key: names it within its task.
        label: what it is.
        side: its text and its recording.
        item: examples of one item say nearly the same, so that they are resampled together; ``""``: like no other.
    """

    key: str
    label: str
    side: Side
    item: str = ""


@dataclass(frozen=True)
class LabelledTask(SuiteTask):
    """What tasks made of labelled examples have in common.

    Attributes:
        test: what is asked.
        train: where solved examples come from, and what judges are fitted on.
    """

    test: tuple[Labelled, ...] = ()
    train: tuple[Labelled, ...] = ()

    @property
    def entries(self) -> int:
        """How many examples are asked."""
        return len(self.test)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, sorted."""
        return tuple(sorted({row.label for row in (*self.test, *self.train)}))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The modalities that at least one example comes in."""
        both: tuple[Kind, ...] = ("text", "speech")
        return tuple(kind for kind in both if any(row.side.has(kind) for row in self.test))

    def drawn(self, limit: int | None, seed: int) -> Self:
        """With at most `limit` test examples, and a bounded number of train examples of each label."""
        kept = {row.key for row in sorted(self.test, key=lambda row: key_of(seed, self.name, row.key))[:limit]}
        test = tuple(row for row in self.test if row.key in kept)
        train = by_turns(self.train, lambda row: row.label, lambda row: key_of(seed, self.name, "train", row.key))
        return replace(self, test=test, train=tuple(train[: _POOL * max(1, len(self.labels))]))

    def recordings(self) -> list[Path]:
        """Its sound files."""
        return [row.side.audio for row in (*self.test, *self.train) if row.side.audio is not None]
