"""What the table of a suite shows, and what is to be said below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spiritlm_core.evaluate.rendering import MISSING, Table, percent

_ABOUT = {
    "accuracy, sum": "how often the right side or label has the highest log-likelihood, in %; a tie of two counts half",
    "accuracy, mean": "the same by log-likelihood per token",
    "macro-F1, sum": "mean F1 of the labels, in %",
    "WER, CER, unit error rate": "errors by words, characters or HuBERT units of the reference, in %: less is better",
    "style kept": "continuations that a classifier finds to have the style of the prompt, in %",
    "acc, acc_norm": "accuracy as lm-eval counts it, in %: by sums, and by sums per character",
    "95 %": "percentile bootstrap over items; of groups of lm-eval, by the standard error",
    "chance": "guessing evenly",
    "trivial": "the best answer that needs no model or no question; which one it is says suite.json",
    "ceiling": "what whoever judges makes of the set's own answers, where there is a judge",
    "items": "of those scored; the pairs of one item, such as voices, are averaged first",
    "skipped": "what could not be scored; each is listed with its reason in suite.json",
    "published elsewhere": "figures of others on the whole official set, not measured here: "
    "B Spirit LM Base, E Expressive",
}
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
    return Table([list(_HEADING), *rows], [*told, WAYS, *_notes(report["measures"])], _ABOUT, _WORDS)


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
