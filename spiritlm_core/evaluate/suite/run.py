"""Running the suite: every model on every task in every way of asking, as one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.evaluate.suite.choices import named_tasks
from spiritlm_core.evaluate.suite.config import SuiteConfig
from spiritlm_core.evaluate.suite.task import Bench, Recordings, SuiteTask, Tell

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM


def run_suite(
    models: Mapping[str, Callable[[], SpiritLM]],
    tasks: Sequence[SuiteTask],
    config: SuiteConfig,
    *,
    batch_size: int = 8,
    tell: Tell = lambda _: None,
) -> dict[str, Any]:
    """Measure every model on every task.

    Args:
        models: name → what loads it. One is loaded after the other; recordings are encoded once for models that share
            a speech tokenizer object.
        tasks: as :func:`spiritlm_core.evaluate.suite.layouts.read_task` gives them.
        config: what is asked.
        batch_size: answers written at once.
        tell: told of progress.

    Returns:
        JSON-able: `models`, `tasks`, `settings`, and `measures`, one for each task, way of asking and model.

    Raises:
        SpiritLMError: nothing can be scored; or a model cannot be loaded.
    """
    if len({task.name for task in tasks}) < len(tasks):
        raise SpiritLMError("two tasks have the same name: name them apart with --task NAME=FOLDER")
    named = named_tasks(config)  # what lm-eval does not know is said now, and not after an hour of others
    drawn = [task.drawn(config.limit, config.seed) for task in tasks]
    known: dict[int, tuple[object, Recordings]] = {}
    measures: list[dict[str, Any]] = []
    for name, load in models.items():
        tell(f"{name}: loading")
        spirit = load()
        bench = Bench(spirit, _heard(spirit, drawn, known, tell), config, batch_size, _named(name, tell))
        measures += [{"model": name, **one} for task in (*drawn, *named) for one in task.measures(bench)]
        del spirit, bench  # before the next one needs its memory
    _check(measures, drawn)
    about = [_about(task, chosen) for task, chosen in zip(tasks, drawn, strict=True)]
    settings = config.model_dump(mode="json")
    return {"models": list(models), "settings": settings, "tasks": about, "measures": _sorted(measures)}


def _named(name: str, tell: Tell) -> Tell:
    return lambda message: tell(f"{name}: {message}")


def _heard(
    spirit: SpiritLM, tasks: Sequence[SuiteTask], known: dict[int, tuple[object, Recordings]], tell: Tell
) -> Recordings:
    """The recordings of all tasks as speech tokens; without a speech tokenizer, each is refused."""
    paths: list[Path] = sorted({path for task in tasks for path in task.recordings()})
    if not paths:
        return Recordings()
    try:
        tokenizer = spirit.speech_tokenizer
    except ModelReferenceError as problem:
        heard = Recordings()
        heard.refuse(paths, str(problem))
        return heard
    _, heard = known.setdefault(id(tokenizer), (tokenizer, Recordings()))
    heard.encode(tokenizer, paths, tell)
    return heard


def _sorted(measures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The models side by side for each way of asking."""
    order = list(dict.fromkeys((one["task"], one["direction"]) for one in measures))
    return sorted(measures, key=lambda one: order.index((one["task"], one["direction"])))


def _about(task: SuiteTask, drawn: SuiteTask) -> dict[str, Any]:
    counts = {"entries": task.entries, "drawn": drawn.entries, "unreadable": len(task.skipped)}
    return {"name": task.name, "layout": task.layout, "folder": str(task.folder), **counts}


def _check(measures: Sequence[Mapping[str, Any]], tasks: Sequence[SuiteTask]) -> None:
    if any(measure["items"] for measure in measures):
        return
    reasons = [one["reason"] for measure in measures for one in measure["skipped"]]
    reasons += [one.reason for task in tasks for one in task.skipped]
    raise SpiritLMError(f"nothing of any task can be scored: {next(iter(reasons), 'the folders hold none')}")
