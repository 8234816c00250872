"""Tasks made of pairs, measured: how often the good side is the more likely one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spiritlm_core.evaluate.suite.config import SuiteConfig
from spiritlm_core.evaluate.suite.likelihood import Scores, preferred, score
from spiritlm_core.evaluate.suite.pairs import Direction, Pair, Task
from spiritlm_core.evaluate.suite.published import published
from spiritlm_core.evaluate.suite.task import Bench, figure, grouped_by, measure
from spiritlm_core.metrics.bootstrap import Estimate, ratio

CHANCE = 0.5


def measure_pairs(task: Task, bench: Bench) -> Iterator[dict[str, Any]]:
    """Accuracy in each direction, by sums and by means of log-likelihoods."""
    for direction in task.directions:
        bench.tell(f"{task.name} {direction.name}")
        yield _measure(
            task, direction, score(bench.spirit, task.pairs, direction, bench.heard, bench.batch_size), bench.config
        )


def _measure(task: Task, direction: Direction, scores: Scores, config: SuiteConfig) -> dict[str, Any]:
    judged = {
        "sum": preferred(scores.sums),
        "mean": preferred(scores.means),
        "shorter": preferred(-scores.tokens.astype(float)),
    }
    flat = _figures(judged, scores.pairs, range(len(scores.pairs)), config)
    others = published(task.name, task.layout, direction.name)
    return {
        **measure(task, direction.name, flat["items"], _shown(flat, others), scores.skipped),
        **flat,
        "kinds": _kinds(judged, scores.pairs, config),
        "published": others,
    }


def _shown(flat: Mapping[str, Any], others: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    trivial = {"shorter": flat["shorter"]} if flat["items"] else {}
    for name in ("sum", "mean"):
        value = Estimate(*(np.nan if flat[key] is None else flat[key] for key in (name, f"{name}_low", f"{name}_high")))
        yield figure(f"accuracy, {name}", value, chance=CHANCE, trivial=trivial, published=others)


def _kinds(judged: Mapping[str, np.ndarray], pairs: Sequence[Pair], config: SuiteConfig) -> dict[str, Any]:
    """The figures of each class of pairs, if there are several."""
    members = grouped_by(pair.kind for pair in pairs)
    if len(members) < 2:
        return {}
    return {kind or "other": _figures(judged, pairs, chosen, config) for kind, chosen in sorted(members.items())}


def _figures(
    judged: Mapping[str, np.ndarray], pairs: Sequence[Pair], chosen: Iterable[int], config: SuiteConfig
) -> dict[str, Any]:
    """Accuracies over the chosen pairs: those of one item are averaged first, and items are resampled."""
    indices = np.array(list(chosen), int)
    members = [indices[group] for group in grouped_by(pairs[index].item for index in indices).values()]
    found: dict[str, Any] = {"items": len(members), "pairs": len(indices), "chance": CHANCE}
    for name, values in judged.items():
        by_item = [float(values[group].mean()) for group in members]
        estimate = ratio(by_item, [1] * len(by_item), samples=config.bootstrap_samples, seed=config.seed)
        found |= estimate.to_dict(name)
    ties = {name: int(np.count_nonzero(judged[name][indices] == 0.5)) for name in ("sum", "mean")}
    return {**found, "ties": ties}
