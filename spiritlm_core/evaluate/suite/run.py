"""Running the suite: every model on every task in every direction, as one report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.evaluate.bootstrap import ratio
from spiritlm_core.evaluate.suite.likelihood import Scores, preferred, score
from spiritlm_core.evaluate.suite.pairs import Direction, Pair, Task, recordings
from spiritlm_core.evaluate.suite.published import published
from spiritlm_core.evaluate.suite.units import Recordings

if TYPE_CHECKING:
    from spiritlm_core.lm.spirit import SpiritLM

CHANCE = 0.5
Tell = Callable[[str], None]
"""Told what is being done."""


class SuiteConfig(FrozenConfig):
    """What is asked of every model."""

    limit: int | None = Field(None, ge=1, description="Most items of a task, drawn by the seed; None: all.")
    seed: int = Field(0, ge=0, description="Of the items drawn and of the intervals.")
    bootstrap_samples: int = Field(1000, ge=100, description="Resamples behind each confidence interval.")


def run_suite(
    models: Mapping[str, Callable[[], SpiritLM]],
    tasks: Sequence[Task],
    config: SuiteConfig,
    *,
    batch_size: int = 8,
    tell: Tell = lambda _: None,
) -> dict[str, Any]:
    """Ask every model which side of each pair is more likely.

    Args:
        models: name → what loads it. One is loaded after the other; recordings are encoded once for models that share
            a speech tokenizer object.
        tasks: as :func:`spiritlm_core.evaluate.suite.layouts.read_task` gives them.
        config: what is asked.
        batch_size: sides in one forward pass.
        tell: told of progress.

    Returns:
        JSON-able: `models`, `tasks`, `settings`, and `measures`, one for each task, direction and model.

    Raises:
        SpiritLMError: nothing can be scored; or a model cannot be loaded.
    """
    if len({task.name for task in tasks}) < len(tasks):
        raise SpiritLMError("two tasks have the same name: name them apart with --task NAME=FOLDER")
    drawn = [task.drawn(config.limit, config.seed) for task in tasks]
    known: dict[int, tuple[object, Recordings]] = {}
    measures = []
    for name, load in models.items():
        tell(f"{name}: loading")
        spirit = load()
        heard = _heard(spirit, drawn, known, tell)
        for task in drawn:
            for direction in task.directions:
                tell(f"{name}: {task.name} {direction.name}")
                found = score(spirit, task.pairs, direction, heard, batch_size)
                measures.append({"model": name, **_measure(task, direction, found, config)})
        del spirit  # before the next one needs its memory
    order = [(task.name, direction.name) for task in drawn for direction in task.directions]
    measures.sort(key=lambda one: order.index((one["task"], one["direction"])))
    _check(measures, drawn)
    about = [_about(task, chosen) for task, chosen in zip(tasks, drawn, strict=True)]
    return {"models": list(models), "settings": config.model_dump(), "tasks": about, "measures": measures}


def _heard(
    spirit: SpiritLM, tasks: Sequence[Task], known: dict[int, tuple[object, Recordings]], tell: Tell
) -> Recordings:
    """The recordings of all tasks as speech tokens; without a speech tokenizer, each is refused."""
    paths = recordings(tasks)
    if not paths:
        return Recordings()
    try:
        tokenizer = spirit.speech_tokenizer
    except ModelReferenceError as problem:
        found = Recordings()
        found.refuse(paths, str(problem))
        return found
    _, found = known.setdefault(id(tokenizer), (tokenizer, Recordings()))
    found.encode(tokenizer, paths, tell)
    return found


def _measure(task: Task, direction: Direction, scores: Scores, config: SuiteConfig) -> dict[str, Any]:
    judged = {
        "sum": preferred(scores.sums),
        "mean": preferred(scores.means),
        "shorter": preferred(-scores.tokens.astype(float)),
    }
    everything = range(len(scores.pairs))
    return {
        "task": task.name,
        "direction": direction.name,
        "layout": task.layout,
        **_figures(judged, scores.pairs, everything, config),
        "kinds": _kinds(judged, scores.pairs, config),
        "published": published(task.name, task.layout, direction.name),
        "skipped": [one.to_dict() for one in (*task.skipped, *scores.skipped)],
    }


def _kinds(judged: Mapping[str, np.ndarray], pairs: Sequence[Pair], config: SuiteConfig) -> dict[str, Any]:
    """The figures of each class of pairs, if there are several."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        members[pair.kind].append(index)
    if len(members) < 2:
        return {}
    return {kind or "other": _figures(judged, pairs, chosen, config) for kind, chosen in sorted(members.items())}


def _figures(
    judged: Mapping[str, np.ndarray], pairs: Sequence[Pair], chosen: Iterable[int], config: SuiteConfig
) -> dict[str, Any]:
    """Accuracies over the chosen pairs: those of one item are averaged first, and items are resampled."""
    members: dict[str, list[int]] = defaultdict(list)
    for index in chosen:
        members[pairs[index].item].append(index)
    found: dict[str, Any] = {"items": len(members), "pairs": sum(map(len, members.values())), "chance": CHANCE}
    for name, values in judged.items():
        by_item = [float(values[group].mean()) for group in members.values()]
        estimate = ratio(by_item, [1] * len(by_item), samples=config.bootstrap_samples, seed=config.seed)
        found |= estimate.to_dict(name)
    indices = [index for group in members.values() for index in group]
    ties = {name: int(np.count_nonzero(judged[name][indices] == 0.5)) for name in ("sum", "mean")}
    return {**found, "ties": ties}


def _about(task: Task, drawn: Task) -> dict[str, Any]:
    counts = {"pairs": len(task.pairs), "drawn": len(drawn.pairs), "unreadable": len(task.skipped)}
    return {"name": task.name, "layout": task.layout, "folder": str(task.folder), **counts}


def _check(measures: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> None:
    if any(measure["pairs"] for measure in measures):
        return
    reasons = [one["reason"] for measure in measures for one in measure["skipped"]]
    reasons += [one.reason for task in tasks for one in task.skipped]
    raise SpiritLMError(f"no pair of any task can be scored: {next(iter(reasons), 'the folders hold none')}")
