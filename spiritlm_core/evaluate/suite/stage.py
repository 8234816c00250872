"""Running the suite: every model on every task in every way of asking; and the stage that does it on built sets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.audio.voices.espeak import Espeak
from spiritlm_core.cores import all_cores
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig, SuiteRunConfig
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.evaluate.suite.build import build_suite
from spiritlm_core.evaluate.suite.choices import named_tasks
from spiritlm_core.evaluate.suite.layouts import read_suite
from spiritlm_core.evaluate.suite.table import page, table
from spiritlm_core.evaluate.suite.task import Bench, Recordings, SuiteTask, Tell
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.speech.folder import ROLES, write_speech_tokenizer


def run_suite(
    models: Mapping[str, Callable[[], SpiritLM]],
    tasks: Sequence[SuiteTask],
    config: SuiteConfig,
    *,
    batch_size: int = 8,
    tell: Tell = lambda _: None,
) -> dict[str, Any]:
    """Measure every model on every task, as :func:`spiritlm_core.evaluate.suite.layouts.read_task` gives them.

    `models` has a name → what loads it. One is loaded after the other; recordings are encoded once for models that
    share a speech tokenizer object.

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


NAME = "model"


class SuiteStage(ArtifactStage):
    """Builds the test sets with the seed of `ask`, and measures the model on them.

    Writes ``suite.json`` (every figure), ``suite.md`` (one table) and ``suite.html``. Role ``model``: the model;
    hubert, quantizer, pitch, style and vocoder: its speech tokenizer, where it has none beside it. The models that
    judge have roles, too, so that their content counts; `ask` says where they are.
    """

    name: ClassVar[str] = "suite"
    about: ClassVar[str] = "zero-shot and few-shot tasks on small test sets"
    version: ClassVar[int] = 4  # 4: verdicts
    outputs: ClassVar[tuple[Output, ...]] = (Output("suite", "suite.html", "suite.html"),)
    inputs: ClassVar[tuple[TableInput, ...]] = ()
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: SuiteRunConfig

    def build(
        self,
        tables: Mapping[str, TableView],  # noqa: ARG002 - the sets are made of templates
        out: Path,
        work: Path,
        progress: Progress,
    ) -> dict[str, Any]:
        """Write the report; returns the value of every figure."""
        progress(0.0, "building test sets")
        folder, speech = self._sets(work), self._speech_tokenizer(work)
        progress(0.2, "asking the model")
        with all_cores():
            report = run_suite(
                {NAME: lambda: SpiritLM.from_pretrained(self.models["model"], speech_tokenizer=speech)},
                read_suite(folder),
                self.config.ask,
                tell=lambda message: progress(0.3, message),
            )
        for task in report["tasks"]:
            task["folder"] = task["name"]  # the same report on every machine
        report = json.loads(json.dumps(report, allow_nan=False).replace(f"{folder}/", ""))
        write_report(out, "suite", report, table(report), page(report))
        return summary(report)

    def _speech_tokenizer(self, work: Path) -> Path | None:
        if self.models.keys().isdisjoint(ROLES):
            return None
        write_speech_tokenizer(work / "speech_tokenizer", self.models, self.config.precision)
        return work / "speech_tokenizer"

    def _sets(self, work: Path) -> Path:
        """The folder of the built sets; what an attempt that was cut off left is built anew."""
        folder = work / "sets"
        shutil.rmtree(folder, ignore_errors=True)
        with Espeak() as espeak:
            build_suite(
                folder,
                espeak if self.config.spoken else None,
                self.config.voices,
                self.config.sets,
                self.config.items,
                self.config.ask.seed,
            )
        return folder


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure flat, ``TASK/WAY/FIGURE`` → value; nothing that was not measured."""
    return {
        f"{measure['task']}/{measure['direction']}/{one['metric']}": one["value"]
        for measure in report["measures"]
        for one in measure["figures"]
        if one["value"] is not None
    }
