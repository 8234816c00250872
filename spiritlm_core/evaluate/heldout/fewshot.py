"""Few-shot speech→text and text→speech on held-out utterances (Spirit LM, arXiv 2402.05755, section 4.2).

A prompt holds solved examples from train, then the question: ``[Speech]…[Text]… … [Speech]… [Text]`` and the
other way round. The answer ends where the model leaves the modality asked for. What needs no model stands
beside every rate, because a small model may do no better.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from statistics import mode
from typing import Any

import numpy as np

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.clips import rank, rows_of
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated, Utterance, labels_of, pick
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.fewshot import Asked, FewShot, draw_shots
from spiritlm_core.lm.generate.prompts import Example, Kind
from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.metrics.distances import Errors, errors, normalise, trivial_answers, units_of, word_errors
from spiritlm_core.metrics.verdicts import Offered, Verdict, beats_trivial

TASKS = ("speech_to_text", "text_to_speech")
OFFERED: dict[str, tuple[Offered, str]] = {
    "speech_to_text": ("transcribe", "word error rate"),
    "text_to_speech": ("say", "unit error rate"),
}
"""Task → as what it is offered to people, and what is measured."""
HELD_OUT = "held-out recordings"
RATES = {"speech_to_text": "wer", "text_to_speech": "unit_error_rate"}

_POOL = 2000  # train utterances that shots and random answers are drawn from


@dataclass(frozen=True)
class Task:
    """One few-shot task, asked."""

    name: str  # one of `TASKS`
    questions: tuple[Utterance, ...]  # what was asked
    wanted: int  # solved examples that each question was to have
    shots: tuple[int, ...]  # those in front of each; fewer where the context does not hold them
    answers: tuple[str, ...]  # of the model, text or speech tokens
    rates: Mapping[str, Errors]  # errors of the model's answers ("model") and of answers that need no model
    answer_lengths: tuple[int, ...]  # words, or collapsed HuBERT units, of each answer
    held_out: int  # held-out utterances with text and speech, short enough or not

    def figures(self, samples: int, seed: int) -> dict[str, Any]:
        """JSON-able: "rates" maps who answered to ``rate``, ``rate_low`` and ``rate_high``; the rest are counts."""
        return {
            "rates": {who: errors.estimate(samples, seed).to_dict("rate") for who, errors in self.rates.items()},
            "best_trivial": self.best_trivial,
            "beats_trivial": beats_trivial(self.rates, samples, seed),
            "utterances": len(self.questions),
            "held_out": self.held_out,
            "mean_shots": _mean(self.shots),
            "empty": sum(not answer for answer in self.answers),
            "mean_answer": _mean(self.answer_lengths),
            "mean_reference": _mean(self.rates["model"].length),
        }

    @property
    def best_trivial(self) -> str:
        """Who makes the fewest errors without the question or without the model."""
        return min((who for who in self.rates if who != "model"), key=lambda who: self.rates[who].rate)

    def verdict(self, places: Sequence[int], samples: int, seed: int, **more: Any) -> Verdict:
        """How the model does on some of the questions, beside the trivial answers to the same ones."""
        rates = {who: errors.only(places) for who, errors in self.rates.items()}
        offered, measure = OFFERED[self.name]
        return Verdict.of_errors(offered, measure, rates, samples, seed, on=HELD_OUT, shots=self.wanted, **more)


def questions(
    sequences: TableView, config: EvaluateConfig, context_length: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Held-out utterances to ask, and the train utterances that shots are drawn from: what people said, if anything.

    Only utterances are asked whose answer fits in `max_new_tokens` and, as a prompt, in the context.
    """
    room = context_length - config.max_new_tokens

    def short(utterance: Utterance) -> bool:
        longest = max(len(utterance.speech_ids), len(utterance.text_ids))
        return bool(utterance.words) and longest <= config.max_new_tokens and utterance.tokens < room

    pool = pick(sequences, "train", _POOL, config.seed, lambda one: not one.synthetic and short(one))
    pool = pool or pick(sequences, "train", _POOL, config.seed, short)
    return pick(sequences, "held_out", config.fewshot_utterances, config.seed, short), pool


def ask(
    task: str,
    asked: Sequence[Utterance],
    pool: Sequence[Utterance],
    evaluated: Evaluated,
    config: EvaluateConfig,
    held_out: int,
    shots: int,
) -> Task:
    """Ask every question of one task and count the errors of the model and of the trivial answers.

    In front of each are `shots` solved examples; none has the same words as the question.
    """
    kinds: tuple[Kind, Kind] = ("speech", "text") if task == "speech_to_text" else ("text", "speech")
    most, context = config.max_new_tokens, evaluated.context_length
    written = kinds[1] == "text"
    fewshot = FewShot(evaluated.spirit, *kinds, transcribes=written, max_new_tokens=most, context=context)
    laid_out = []
    for target in asked:
        drawn = draw_shots(
            pool, target, shots, config.seed, key=attrgetter("key"), said=attrgetter("words"), balanced=False
        )
        solved = [_example(shot, kinds, evaluated) for shot in drawn]
        laid_out.append(fewshot.lay_out(_example(target, kinds, evaluated).question, solved))
    answers, keys = fewshot.answers(laid_out), [target.key for target in asked]
    train = [utterance.text if written else evaluated.speech(utterance.speech_ids) for utterance in pool]
    right = [target.text if written else evaluated.speech(target.speech_ids) for target in asked]
    given = {"model": answers, **trivial_answers(answers, train, keys, config.seed, fixed=written)}
    language = mode([target.language for target in asked]) if asked else None
    count = partial(word_errors, language=language) if written else partial(errors, prepare=units_of)
    rates = {who: count(right, theirs) for who, theirs in given.items()}
    lengths = tuple(len(normalise(answer).split() if written else units_of(answer)) for answer in answers)
    shown = tuple(one.shots for one in laid_out)
    return Task(task, tuple(asked), shots, shown, tuple(answers), rates, lengths, held_out)


def _example(utterance: Utterance, kinds: tuple[Kind, Kind], evaluated: Evaluated) -> Example:
    """Question and answer in the modalities `kinds`; the text is that of its tokens."""
    sides = {"text": evaluated.text(utterance.text_ids), "speech": evaluated.speech(utterance.speech_ids)}
    asked, kind = kinds
    return Example(((asked, sides[asked]),), ((kind, sides[kind]),))


def _mean(values: Iterable[int]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 3) if listed else None


MOST_LABELS = 100  # where there are more, the labels are names rather than classes, and nothing is asked


@dataclass(frozen=True)
class Classified:
    """Recordings with a label, asked."""

    keys: tuple[str, ...]  # utterance_id of each
    right: tuple[str, ...]  # the label of each
    given: tuple[str, ...]  # the label that the model finds likeliest
    labels: tuple[str, ...]  # all that were chosen from

    def verdicts(self, samples: int, seed: int) -> list[Verdict]:
        """Accuracy beside that of the commonest label; then of the recordings of each label, beside guessing evenly."""
        shown = [label for label in self.labels if label in self.right]
        groups = {"": list(range(len(self.right)))}
        groups |= {label: [i for i, right in enumerate(self.right) if right == label] for label in shown}
        return [self._verdict(name, places, samples, seed) for name, places in groups.items()]

    def _verdict(self, group: str, places: Sequence[int], samples: int, seed: int) -> Verdict:
        common = Counter(self.right).most_common(1)[0][0]
        right = np.array([self.given[i] == self.right[i] for i in places], float)
        trivial = np.array([common == self.right[i] for i in places], float)
        ones = np.ones(len(places))
        gain = ratio(right - trivial, ones, samples=samples, seed=seed)
        shares = {"chance": 1 / len(self.labels), **({} if group else {"majority": float(trivial.mean())})}
        estimate = ratio(right, ones, samples=samples, seed=seed)
        better = estimate.low > shares["chance"] and (bool(group) or gain.low > 0)
        about = {"on": HELD_OUT, "items": len(places), "group": group, "labels": self.labels}
        return Verdict.of("classify", "accuracy", estimate, shares, better=better, **about)

    def confusions(self) -> list[list[int]]:
        """How often each right label (rows) was given each label (columns)."""
        counts = Counter(zip(self.right, self.given, strict=True))
        return [[counts[right, given] for given in self.labels] for right in self.labels]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        answers = zip(self.keys, self.right, self.given, strict=True)
        return {
            "labels": list(self.labels),
            "confusions": self.confusions(),
            "answers": [{"key": key, "label": right, "answer": given} for key, right, given in answers],
        }


def classify(tables: Mapping[str, TableView], evaluated: Evaluated, config: EvaluateConfig) -> Classified | None:
    """Ask for the labels of held-out recordings; None where there are no two labels to choose from."""
    wanted, train = labels_of(tables["audio"], "held_out"), labels_of(tables["audio"], "train")
    labels = tuple(sorted({*train.values(), *wanted.values()}))
    keys = heapq.nsmallest(config.fewshot_utterances, wanted, key=lambda key: rank(config.seed, key))
    if not keys or not 1 < len(labels) <= MOST_LABELS:
        return None
    rows = rows_of(tables["sequences"], set(keys), ["speech_ids"])
    fewshot = FewShot(evaluated.spirit, "speech", "text", labels=labels, context=evaluated.context_length)
    asked = {key: one for key in keys if (one := _asked(fewshot, evaluated, rows[key]["speech_ids"]))}
    if not asked:
        return None
    given = fewshot.answers(list(asked.values()))
    return Classified(tuple(asked), tuple(wanted[key] for key in asked), tuple(given), labels)


def _asked(fewshot: FewShot, evaluated: Evaluated, ids: Sequence[int] | None) -> Asked | None:
    """None for a recording without units, or one that does not fit into the context."""
    try:
        return fewshot.lay_out((("speech", evaluated.speech(ids)),)) if ids else None
    except Rejection:
        return None
