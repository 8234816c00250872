"""What every task of the suite has in common, and what it is given to measure a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from spiritlm_core.evaluate.bootstrap import Estimate
from spiritlm_core.evaluate.suite.config import SuiteConfig

if TYPE_CHECKING:
    from spiritlm_core.evaluate.suite.units import Recordings
    from spiritlm_core.lm.spirit import SpiritLM

Tell = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True)
class Skipped:
    """Something that cannot be scored, and why."""

    key: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """JSON-able."""
        return {"pair": self.key, "reason": self.reason}


@dataclass(frozen=True)
class Bench:
    """A model, and how it is measured.

    Attributes:
        spirit: the model.
        heard: the speech tokens of all recordings of the tasks.
        config: what is asked.
        batch_size: sequences in one forward pass.
        tell: told of progress.
    """

    spirit: SpiritLM
    heard: Recordings
    config: SuiteConfig
    batch_size: int = 8
    tell: Tell = lambda _: None


class SuiteTask(Protocol):
    """A task: a test set in a folder."""

    @property
    def name(self) -> str:
        """As the user calls it."""

    @property
    def layout(self) -> str:
        """How its folder is laid out."""

    @property
    def folder(self) -> Path:
        """Where it was read from."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What looked like an entry and is none."""

    @property
    def entries(self) -> int:
        """How many questions it has."""

    def drawn(self, limit: int | None, seed: int) -> Self:
        """With at most `limit` items, drawn by `seed` and the items alone."""

    def recordings(self) -> list[Path]:
        """Its sound files."""

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """What :func:`measure` makes, for each way of asking."""


def measure(
    task: SuiteTask,
    direction: str,
    items: int,
    figures: Iterable[Mapping[str, Any]],
    skipped: Iterable[Skipped],
    **more: Any,
) -> dict[str, Any]:
    """A way of asking one task, measured; JSON-able. `more` is kept in the JSON, and not in the table."""
    return {
        "task": task.name,
        "direction": direction,
        "layout": task.layout,
        "items": items,
        "figures": [dict(one) for one in figures],
        "kinds": {},
        "skipped": [one.to_dict() for one in (*task.skipped, *skipped)],
        **more,
    }


def figure(
    metric: str,
    value: Estimate,
    *,
    chance: float | None = None,
    trivial: Mapping[str, float] | None = None,
    ceiling: float | None = None,
    lower: bool = False,
    published: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One figure with its interval, and what to compare it with; JSON-able.

    Args:
        metric: what is measured.
        value: a share, or an error rate.
        chance: what guessing evenly reaches.
        trivial: name → what an answer reaches that needs no model, or no question. The best one is shown.
        ceiling: what whoever judges makes of right answers.
        lower: whether less is better, as of error rates.
        published: model → figure of others in per cent.
    """
    best = min if lower else max
    name = best(trivial, key=trivial.__getitem__) if trivial else None
    return {
        "metric": metric,
        **value.to_dict("value"),
        "chance": chance,
        "trivial": trivial[name] if trivial and name else None,
        "trivial_answer": name,
        "trivials": dict(trivial or {}),
        "ceiling": ceiling,
        "better": "lower" if lower else "higher",
        "published": dict(published or {}),
    }


def grouped_by(keys: Iterable[str]) -> dict[str, list[int]]:
    """Key → positions, in order of first sight."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return dict(found)
