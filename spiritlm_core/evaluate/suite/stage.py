"""Running the suite: every model on every task in every way of asking, its table, and the stage for built sets."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.audio.voices.espeak import Espeak
from spiritlm_core.cores import all_cores
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig, SuiteRunConfig
from spiritlm_core.evaluate.rendering import MISSING, Table, percent, write_report
from spiritlm_core.evaluate.suite.build import build_suite
from spiritlm_core.evaluate.suite.labels import named_tasks
from spiritlm_core.evaluate.suite.layouts import read_suite
from spiritlm_core.evaluate.suite.task import Bench, Recordings, SuiteTask, Tell
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.speech.folder import ROLES, write_speech_tokenizer

_REASONS_SHOWN = 20
_HEADING = (
    "task",
    "",
    "model",
    "figure",
    "value",
    "95 %",
    "chance",
    "trivial",
    "ceiling",
    "items",
    "skipped",
    "published elsewhere",
)
_WORDS = (0, 1, 2, 3, 11)  # columns of the table that hold words


VERDICTS = {True: "better than chance", False: "not shown to be better than chance", None: "nothing to compare with"}
WAYS = (
    "T is text, S is speech. S→T asks in speech and is answered in text, T→S the other way round; of pairs, the first "
    "is the modality of the beginning, the second that of the endings. 0 shots: the model sees the question alone; 5 "
    "shots: behind five solved examples. Better than chance: the 95 % interval of the first figure lies beyond "
    "guessing evenly and beyond the best answer that needs no model or no question."
)


def table(report: Mapping[str, Any]) -> Table:
    """A row for each task, way of asking, model and figure; below it the verdicts, and why something was skipped."""
    rows = [row for measure in report["measures"] for row in _rows(measure)]
    told = [
        f"{title}: {'; '.join(f'{said} ({asked})' for said, asked in found.items())}."
        for title, found, _ in verdicts(report["measures"])
    ]
    return Table([list(_HEADING), *rows], [*told, WAYS, *_notes(report["measures"])], {}, _WORDS)


def verdicts(measures: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, str], list[Mapping[str, Any]]]]:
    """For each task, and each model where there are several: its title, verdict → ways of asking, its measures."""
    several = len({measure["model"] for measure in measures}) > 1
    found: dict[str, list[Mapping[str, Any]]] = {}
    for measure in measures:
        title = f"{measure['task']}, {measure['model']}" if several else measure["task"]
        found.setdefault(title, []).append(measure)
    return [(title, _verdict(ways), ways) for title, ways in found.items()]


def _verdict(measures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    ways: dict[str, list[str]] = {}
    for measure in measures:
        said = VERDICTS[measure["figures"][0]["beats_trivial"]] if measure["figures"] else "not measured"
        ways.setdefault(said, []).append(measure["direction"])
    return {said: " · ".join(ways[said]) for said in sorted(ways)}


def _rows(measure: Mapping[str, Any]) -> list[list[str]]:
    head = [measure["task"], measure["direction"], measure["model"]]
    tail = [str(measure["items"]), str(len(measure["skipped"]))]
    if not measure["figures"]:
        return [[*head, MISSING, *[MISSING] * 5, *tail, ""]]
    return [[*head, *_figure(one), *tail, _published(one)] for one in measure["figures"]]


def _figure(one: Mapping[str, Any]) -> list[str]:
    low, high = one["value_low"], one["value_high"]
    interval = MISSING if low is None else f"{100 * low:.1f}-{100 * high:.1f}"
    others = ("" if one[name] is None else percent(one[name]) for name in ("chance", "trivial", "ceiling"))
    return [one["metric"], percent(one["value"]), interval, *others]


def _published(one: Mapping[str, Any]) -> str:
    quoted = [f"{name.removeprefix('Spirit LM ')[0]} {value:.1f}" for name, value in one["published"].items()]
    return ", ".join(quoted)


def _notes(measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was skipped first, and where; one line for a reason."""
    places: dict[str, list[str]] = {}
    for measure in measures:
        if skipped := measure["skipped"]:
            where = f"{measure['task']} {measure['direction']}, {measure['model']} ({len(skipped)})"
            places.setdefault(skipped[0]["reason"], []).append(where)
    return [f"skipped of {'; '.join(where)}: {reason}" for reason, where in places.items()]


def page(report: Mapping[str, Any]) -> str:
    """One HTML file; what was skipped is listed below each way of asking."""
    settings = report["settings"]
    limit = "all items" if settings["limit"] is None else f"at most {settings['limit']} items of a task"
    note = f"Seed {settings['seed']}, {settings['bootstrap_samples']} resamples, {limit}."
    measures, parts = report["measures"], []
    for title, found, ways in verdicts(measures):
        rows = [(measure["direction"], one, _published(one)) for measure in ways for one in measure["figures"]]
        parts.append({"title": title, "found": found, "rows": rows, "measures": ways})
    values = {"measures": measures, "tasks": report["tasks"], "shown": _REASONS_SHOWN, "parts": parts, "ways": WAYS}
    return replace(table(report), notes=[note]).page("suite.html.j2", **values)


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
    share a speech tokenizer object. Returns JSON-able: `models`, `tasks`, `settings`, and `measures`, one for each
    task, way of asking and model. Raises SpiritLMError: nothing can be scored; or a model cannot be loaded.
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
    version: ClassVar[int] = 5  # 4: verdicts; 5: transcripts that never end
    outputs: ClassVar[tuple[Output, ...]] = (Output("suite", "suite.html", "suite.html"),)
    inputs: ClassVar[tuple[TableInput, ...]] = ()
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: SuiteRunConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
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
