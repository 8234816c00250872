"""What every task of the suite has in common, and what it is given to measure a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from spiritlm_core.evaluate.suite.config import SuiteConfig
from spiritlm_core.metrics.bootstrap import Estimate

if TYPE_CHECKING:
    from spiritlm_core.evaluate.suite.units import Recordings
    from spiritlm_core.lm.generate.spirit import SpiritLM

Tell = Callable[[str], None]
"""Told what is being done."""

_T = TypeVar("_T")


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

    @property
    def context(self) -> int:
        """How many tokens the model sees at once."""
        return int(self.spirit.model.config.max_position_embeddings)


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
    rates = {name: rate for name, rate in (trivial or {}).items() if np.isfinite(rate)}
    name = best(rates, key=rates.__getitem__, default=None)
    return {
        "metric": metric,
        **value.to_dict("value"),
        "chance": chance,
        "trivial": rates.get(name) if name else None,
        "trivial_answer": name,
        "trivials": rates,
        "ceiling": ceiling if ceiling is not None and np.isfinite(ceiling) else None,
        "better": "lower" if lower else "higher",
        "published": dict(published or {}),
    }


def by_turns(rows: Iterable[_T], group: Callable[[_T], Any], order: Callable[[_T], Any]) -> list[_T]:
    """The rows in an order in which their groups take turns: the first of each, then the second of each, ….

    Args:
        rows: any.
        group: the group of a row.
        order: what rows are sorted by, in their group and among those of one turn.
    """
    turns: dict[Any, Iterator[int]] = defaultdict(count)
    numbered = [(next(turns[group(row)]), row) for row in sorted(rows, key=order)]
    return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]


def summed_by(items: Iterable[str], values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """For a bootstrap over items: the sum of the values of each, float64[I], and how many it has, int64[I].

    Args:
        items: of each value; ``""`` is an item of its own.
        values: float[N].
    """
    groups = grouped_by(item or f"\0{number}" for number, item in enumerate(items)).values()
    found = np.asarray(values, np.float64)
    return np.array([found[group].sum() for group in groups]), np.array([len(group) for group in groups], np.int64)


def grouped_by(keys: Iterable[str]) -> dict[str, list[int]]:
    """Key → positions, in order of first sight."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return dict(found)
