"""What tasks are made of: texts and recordings, alone or in pairs of which one side should be more likely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.units import Recordings
from spiritlm_core.lm.generate.prompts import Kind, known_streams

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.formats import PromptFormat


@dataclass(frozen=True)
class Side:
    """One side of a pair, or what stands in front of both, in every form there is.

    Attributes:
        text: what is written.
        audio: a sound file; whether it exists is found out when it is read.
        tokens: speech tokens such as ``[Hu7][Hu9]`` in place of a sound file.
    """

    text: str | None = None
    audio: Path | None = None
    tokens: str | None = None

    def has(self, kind: Kind) -> bool:
        """Whether there is such a form."""
        return self.text is not None if kind == "text" else (self.audio or self.tokens) is not None


@dataclass(frozen=True)
class Pair:
    """A right and a wrong side.

    Attributes:
        key: names the pair within its task.
        good: what should be more likely.
        bad: what should be less likely.
        prefix: what stands in front of both, if anything.
        kind: its class within the task, such as a syntactic phenomenon.
        item: pairs of one item (the same words in several voices) count as one.
    """

    key: str
    good: Side
    bad: Side
    prefix: Side | None = None
    kind: str = ""
    item: str = ""

    def has(self, direction: Direction) -> bool:
        """Whether its sides, and its prefix, come in the forms of a direction."""
        if self.prefix is None:
            return not direction.crosses and self.good.has(direction.sides) and self.bad.has(direction.sides)
        return self.prefix.has(direction.prefix) and self.good.has(direction.sides) and self.bad.has(direction.sides)


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
