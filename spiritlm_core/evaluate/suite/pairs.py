"""What a zero-shot task is made of: pairs of which the model should find one side more likely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spiritlm_core.evaluate.suite.task import Bench, Skipped
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.tokens.counter import key_of


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


@dataclass(frozen=True)
class Task:
    """A task made of pairs, see :class:`spiritlm_core.evaluate.suite.task.SuiteTask`.

    Attributes:
        name: as the user calls it.
        layout: how its folder is laid out.
        folder: where it was read from.
        pairs: in the order of the folder.
        skipped: what looked like a pair and is none.
    """

    name: str
    layout: str
    folder: Path
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def directions(self) -> list[Direction]:
        """Those that at least one pair has the forms for."""
        return [direction for direction in DIRECTIONS if any(pair.has(direction) for pair in self.pairs)]

    def drawn(self, limit: int | None, seed: int) -> Task:
        """With the pairs of at most `limit` items, drawn by `seed` and the items alone."""
        items = sorted({pair.item for pair in self.pairs}, key=lambda item: key_of(seed, self.name, item))
        kept = set(items[:limit])
        return replace(self, pairs=tuple(pair for pair in self.pairs if pair.item in kept))

    @property
    def entries(self) -> int:
        """How many pairs it has."""
        return len(self.pairs)

    def recordings(self) -> list[Path]:
        """Its sound files."""
        sides = (side for pair in self.pairs for side in (pair.prefix, pair.good, pair.bad) if side)
        return [side.audio for side in sides if side.audio is not None]

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Accuracy in each direction."""
        from spiritlm_core.evaluate.suite.zeroshot import measure_pairs

        return measure_pairs(self, bench)
