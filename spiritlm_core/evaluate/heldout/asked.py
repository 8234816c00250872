"""What the model answers when it is asked as the commands ask it: what it heard, what it said, how it classifies."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritlm_core.evaluate.clips import good_rows, rank, read_clips, rows_of
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated, Utterance, count, labels_of, train_words
from spiritlm_core.evaluate.heldout.fewshot import HELD_OUT, TASKS, Classified, Task, ask, classify, questions
from spiritlm_core.evaluate.heldout.listening import ANSWER, RECORDING, RESYNTHESIS, Listening, listen
from spiritlm_core.evaluate.recogniser import Recogniser
from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.verdicts import Verdict

AS_HEARD = "word error rate in the spoken answers"
LISTENED_SECONDS = (0.5, 10.0)
KNOWN_WORDS = "all words occur in training"  # the group of recordings of which this is true


@dataclass(frozen=True)
class Answers:
    """All that was asked."""

    # speech to text and text to speech by name, without solved examples; then both with them, where asked
    tasks: Sequence[Task]
    groups: Mapping[str, Sequence[int]]  # name → places among the questions; "" is all of them
    listening: Listening  # what can be heard
    classified: Classified | None  # labels; None where there are none

    @property
    def plain(self) -> dict[str, Task]:
        """The tasks without solved examples."""
        return {task.name: task for task in self.tasks if not task.wanted}

    def verdicts(self, config: EvaluateConfig) -> list[Verdict]:
        """One for each task, each way of asking and each group of the recordings."""
        return [*self._by_task(config), *(self.classified.verdicts(*_draws(config)) if self.classified else ())]

    def _by_task(self, config: EvaluateConfig) -> Iterator[Verdict]:
        for task in self.tasks:
            if task.name == "text_to_speech" and not task.wanted and (heard := self.listening.rates()):
                about: dict[str, Any] = {"on": HELD_OUT, "beside": self._beside(RESYNTHESIS, "recordings")}
                yield Verdict.of_errors("say", AS_HEARD, heard, *_draws(config), **about)
            ceiling = self._beside("recogniser") if task.name == "speech_to_text" else {}
            for name, places in self.groups.items():
                more: dict[str, Any] = {} if name else {"beside": ceiling}
                yield task.verdict(places, *_draws(config), group=name, **more)

    def _beside(self, *names: str) -> dict[str, float]:
        """Word error rates of a recogniser: in resynthesis, else in the recordings, whatever that is called."""
        found = {name: self.listening.errors(RESYNTHESIS if name == RESYNTHESIS else RECORDING) for name in names}
        return {name: round(errors.rate, 4) for name, errors in found.items() if errors is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: every question with its answer."""
        written = {one.clip.key: dict(one.heard) for one in self.listening.clips}
        found: dict[str, Any] = {name: _rows(task, written) for name, task in self.plain.items()}
        if self.classified:
            found["classification"] = self.classified.to_dict()
        return found


def _draws(config: EvaluateConfig) -> tuple[int, int]:
    return config.bootstrap_samples, config.seed


def _rows(task: Task, written: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    errors = task.rates["model"]
    names = {"recogniser": RECORDING} if task.name == "speech_to_text" else {ANSWER: ANSWER, RESYNTHESIS: RESYNTHESIS}

    def heard(key: str) -> dict[str, str]:
        return {name: written[key][of] for name, of in names.items() if of in written.get(key, ())}

    return [
        {
            "key": question.key,
            "reference": question.text,
            "answer": task.answers[i],
            "errors": errors.edits[i],
            "length": errors.length[i],
            "heard": heard(question.key),
        }
        for i, question in enumerate(task.questions)
    ]


def ask_all(
    tables: Mapping[str, TableView],
    models: Mapping[str, Path],
    evaluated: Evaluated,
    config: EvaluateConfig,
    progress: Progress,
) -> Answers:
    """Ask held-out recordings without and with solved examples, listen to the first of them, and ask for labels.

    Roles of `models`: vocoder and recogniser, where there are any.
    """
    progress(0.4, "asking the model")
    sequences = tables["sequences"]
    questions_, pool = questions(tables, config, evaluated.context_length)
    held_out = count(sequences, "held_out") if questions_ else 0
    ways = dict.fromkeys((0, config.shots)) if questions_ else ()
    tasks = [ask(name, questions_, pool, evaluated, config, held_out, shots) for shots in ways for name in TASKS]
    said = next((task for task in tasks if task.name == "text_to_speech"), None)
    progress(0.6, "listening to recordings, resynthesis and answers")
    listening = _listened(said, tables, models, config)
    return Answers(tasks, groups_of(questions_, tables), listening, classify(tables, evaluated, config))


def _listened(
    said: Task | None, tables: Mapping[str, TableView], models: Mapping[str, Path], config: EvaluateConfig
) -> Listening:
    """To the first that were asked; to any held-out recordings where none were."""
    from spiritlm_core.speech.vocoder.vocoder import Vocoder

    answers = {one.key: answer for one, answer in zip(said.questions, said.answers, strict=True)} if said else {}
    clips = read_clips(tables["audio"], [*answers][: config.listened] or _any(tables["audio"], config))
    return listen(
        clips,
        answers,
        rows_of(tables["units"], {clip.key for clip in clips}, ["hubert", "pitch", "style"]),
        Vocoder.load(models["vocoder"]) if "vocoder" in models else None,
        Recogniser(models["recogniser"]) if "recogniser" in models else None,
    )


def _any(audio: TableView, config: EvaluateConfig) -> list[str]:
    rows = good_rows(audio, "held_out", *LISTENED_SECONDS)
    return heapq.nsmallest(config.listened, rows, key=lambda key: rank(config.seed, key))


def groups_of(questions: Sequence[Utterance], tables: Mapping[str, TableView]) -> dict[str, list[int]]:
    """All questions under "", those with known words alone, and those of each label, where that is not all of them."""
    known, labels = train_words(tables["sequences"]), labels_of(tables["audio"], "held_out")
    groups = {KNOWN_WORDS: [i for i, one in enumerate(questions) if known.issuperset(one.words.split())]}
    for label in sorted({labels[one.key] for one in questions if one.key in labels}):
        groups[label] = [i for i, one in enumerate(questions) if labels.get(one.key) == label]
    return {"": list(range(len(questions)))} | {n: p for n, p in groups.items() if 0 < len(p) < len(questions)}
