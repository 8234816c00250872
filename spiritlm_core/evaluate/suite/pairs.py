"""What tasks are made of: texts and recordings, alone or with labels, or in pairs of which one side is more likely."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.task import Recordings, SuiteTask
from spiritlm_core.lm.generate.fewshot import by_turns
from spiritlm_core.lm.generate.formats import PromptFormat
from spiritlm_core.lm.generate.prompts import Kind, known_streams
from spiritlm_core.tokens.counter import key_of


@dataclass(frozen=True)
class Side:
    """One side of a pair, or what stands in front of both, in every form there is."""

    text: str | None = None  # what is written
    audio: Path | None = None  # a sound file; whether it exists is found out when it is read
    tokens: str | None = None  # speech tokens such as ``[Hu7][Hu9]`` in place of a sound file

    def has(self, kind: Kind) -> bool:
        """Whether there is such a form."""
        return self.text is not None if kind == "text" else (self.audio or self.tokens) is not None


@dataclass(frozen=True)
class Pair:
    """A right and a wrong side."""

    key: str  # names the pair within its task
    good: Side  # what should be more likely
    bad: Side  # what should be less likely
    prefix: Side | None = None  # what stands in front of both, if anything
    kind: str = ""  # its class within the task, such as a syntactic phenomenon
    item: str = ""  # pairs of one item (the same words in several voices) count as one

    def has(self, direction: Direction) -> bool:
        """Whether its sides, and its prefix, come in the forms of a direction."""
        begins = self.prefix.has(direction.prefix) if self.prefix else not direction.crosses
        return begins and self.good.has(direction.sides) and self.bad.has(direction.sides)


@dataclass(frozen=True)
class Direction:
    """The modality of the prefix, and that of the two sides."""

    prefix: Kind
    sides: Kind

    @property
    def crosses(self) -> bool:
        """Whether the two differ."""
        return self.prefix != self.sides

    @property
    def name(self) -> str:
        """``T``, ``S``, ``T→S`` or ``S→T``, as in the paper."""
        first, last = (kind[0].upper() for kind in (self.prefix, self.sides))
        return f"{first}→{last}" if self.crosses else first


DIRECTIONS = (
    Direction("text", "text"),
    Direction("speech", "speech"),
    Direction("text", "speech"),
    Direction("speech", "text"),
)


def content_of(layout: PromptFormat, side: Side, kind: Kind, recordings: Recordings) -> str:
    """Text, or the speech tokens that the model has. Raises Rejection if there is no such form."""
    if kind == "text" and side.text is not None:
        return " ".join(side.text.split())
    if kind == "speech" and side.tokens is not None:
        return known_streams("".join(side.tokens.split()), layout.vocabulary)
    if kind == "speech" and side.audio is not None:
        return known_streams(recordings.tokens(side.audio), layout.vocabulary)
    raise Rejection(f"there is no {'text' if kind == 'text' else 'recording'} of it")


_POOL = 16  # train rows of each label that solved examples are drawn from, and judges are fitted on


@dataclass(frozen=True)
class Labelled:
    """A labelled text, recording, or both."""

    key: str  # names it within its task
    label: str  # what it is
    side: Side  # its text and its recording
    # examples of one item say nearly the same, so that they are resampled together; ``""``: like no other
    item: str = ""


@dataclass(frozen=True)
class LabelledTask(SuiteTask):
    """What tasks made of labelled examples have in common."""

    counted: ClassVar[str] = "test"
    test: tuple[Labelled, ...] = ()  # what is asked
    train: tuple[Labelled, ...] = ()  # where solved examples come from, and what judges are fitted on

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
        train = by_turns(self.train, lambda row: row.label, lambda row: key_of(seed, self.name, "train", row.key))
        return replace(super().drawn(limit, seed), train=tuple(train[: _POOL * max(1, len(self.labels))]))

    def recordings(self) -> list[Path]:
        """Its sound files."""
        return [row.side.audio for row in (*self.test, *self.train) if row.side.audio is not None]
