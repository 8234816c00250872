"""Few-shot speech→text and text→speech on held-out utterances (Spirit LM, arXiv 2402.05755, section 4.2).

A prompt holds solved examples from train, then the question: ``[Speech]…[Text]… … [Speech]… [Text]`` and the
other way round. The answer ends where the model leaves the modality asked for. What needs no model stands
beside every rate, because a small model may do no better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.corpus import Utterance, pick, rank
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.prompts import Kind, few_shot
from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.metrics.distances import Errors, collapse, normalise, unit_errors, word_errors

if TYPE_CHECKING:
    from spiritlm_core.evaluate.heldout.answers import Evaluated
    from spiritlm_core.tokens.vocabulary import Vocabulary

TASKS = ("speech_to_text", "text_to_speech")
RATES = {"speech_to_text": "wer", "text_to_speech": "unit_error_rate"}

_T = TypeVar("_T")
_POOL = 2000  # train utterances that shots and random answers are drawn from


@dataclass(frozen=True)
class Question:
    """A held-out utterance and the solved examples in front of it."""

    target: Utterance
    shots: tuple[Utterance, ...]


@dataclass(frozen=True)
class Task:
    """One few-shot task, asked.

    Attributes:
        name: One of :data:`TASKS`.
        questions: What was asked.
        answers: New token ids of the model, one list per question.
        rates: Errors of the model's answers ("model") and of answers that need no model.
        answer_lengths: Words, or collapsed HuBERT units, of each answer.
        held_out: Held-out utterances with text and speech, short enough or not.
    """

    name: str
    questions: tuple[Question, ...]
    answers: tuple[tuple[int, ...], ...]
    rates: Mapping[str, Errors]
    answer_lengths: tuple[int, ...]
    held_out: int

    def figures(self, samples: int, seed: int) -> dict[str, Any]:
        """JSON-able: "rates" maps who answered to ``rate``, ``rate_low`` and ``rate_high``; the rest are counts."""
        return {
            "rates": {who: errors.estimate(samples, seed).to_dict("rate") for who, errors in self.rates.items()},
            "best_trivial": self.best_trivial,
            "beats_trivial": self._beats_trivial(samples, seed),
            "utterances": len(self.questions),
            "held_out": self.held_out,
            "mean_shots": _mean(len(question.shots) for question in self.questions),
            "empty": sum(not answer for answer in self.answers),
            "mean_answer": _mean(self.answer_lengths),
            "mean_reference": _mean(self.rates["model"].length),
        }

    @property
    def best_trivial(self) -> str:
        """Who makes the fewest errors without the question or without the model."""
        return min((who for who in self.rates if who != "model"), key=lambda who: self.rates[who].rate)

    def _beats_trivial(self, samples: int, seed: int) -> bool:
        """Whether the model makes fewer errors than each trivial answer, utterance by utterance, beyond chance."""
        model = np.array(self.rates["model"].edits)
        gains = [np.array(errors.edits) - model for who, errors in self.rates.items() if who != "model"]
        lengths = self.rates["model"].length
        return all(ratio(gain, lengths, samples=samples, seed=seed).low > 0 for gain in gains)


def questions(
    sequences: TableView, config: EvaluateConfig, context_length: int
) -> tuple[list[Question], list[Utterance]]:
    """Held-out utterances with as many shots as fit, and the train utterances these were drawn from.

    Only utterances are asked whose answer fits in `max_new_tokens` and, as a prompt, in the context. A shot never
    has the same words as the question.
    """
    room = context_length - config.max_new_tokens

    def short(utterance: Utterance) -> bool:
        longest = max(len(utterance.speech_ids), len(utterance.text_ids))
        return bool(normalise(utterance.text)) and longest <= config.max_new_tokens and utterance.tokens <= room

    pool = pick(sequences, "train", _POOL, config.seed, short)
    targets = pick(sequences, "held_out", config.fewshot_utterances, config.seed, short)
    return [Question(target, _shots(target, pool, config, room - 1)) for target in targets], pool


def _shots(target: Utterance, pool: Sequence[Utterance], config: EvaluateConfig, room: int) -> tuple[Utterance, ...]:
    words, left = normalise(target.text), room - target.tokens
    chosen: list[Utterance] = []
    for shot in sorted(pool, key=lambda shot: rank(config.seed, f"{target.key}/{shot.key}")):
        if len(chosen) == config.shots:
            break
        if shot.tokens <= left and normalise(shot.text) != words:
            chosen.append(shot)
            left -= shot.tokens
    return tuple(chosen)


def prompt(question: Question, task: str, vocabulary: Vocabulary) -> list[int]:
    """Token ids from BOS (if the model has one) to the marker that the answer follows."""
    pairs = [(u.speech_ids.tolist(), u.text_ids.tolist()) for u in (*question.shots, question.target)]
    if task == "speech_to_text":
        return few_shot(pairs[:-1], pairs[-1][0], vocabulary, "text")
    return few_shot([(text, speech) for speech, text in pairs[:-1]], pairs[-1][1], vocabulary, "speech")


def hubert_units(ids: Sequence[int] | np.ndarray, vocabulary: Vocabulary) -> list[int]:
    """The HuBERT units among `ids`, in order, runs collapsed."""
    first = vocabulary.hubert_id(0)
    return collapse(int(i) - first for i in ids if first <= i < first + vocabulary.hubert)


def ask(
    task: str,
    asked: Sequence[Question],
    pool: Sequence[Utterance],
    evaluated: Evaluated,
    config: EvaluateConfig,
    held_out: int,
) -> Task:
    """Ask every question of one task and count the errors of the model and of the trivial answers."""
    modality: Kind = "text" if task == "speech_to_text" else "speech"
    prompts = [prompt(question, task, evaluated.vocabulary) for question in asked]
    answers = evaluated.answer(prompts, modality, config.max_new_tokens)
    if modality == "text":
        texts = [evaluated.decode(ids) for ids in answers]
        rates, lengths = _word_rates(asked, texts, pool, config.seed), [len(normalise(t).split()) for t in texts]
    else:
        units = [hubert_units(ids, evaluated.vocabulary) for ids in answers]
        rates, lengths = _unit_rates(asked, units, pool, config.seed, evaluated.vocabulary), [*map(len, units)]
    return Task(task, tuple(asked), tuple(tuple(ids) for ids in answers), rates, tuple(lengths), held_out)


def _word_rates(
    asked: Sequence[Question], answers: Sequence[str], pool: Sequence[Utterance], seed: int
) -> dict[str, Errors]:
    references = [question.target.text for question in asked]
    trivial = _shuffled(answers) | {"nothing": [""] * len(asked)}
    if pool:
        trivial["random"] = [_random(question, pool, seed).text for question in asked]
        trivial["fixed"] = [_most_common([utterance.text for utterance in pool])] * len(asked)
    return {name: word_errors(references, given) for name, given in {"model": list(answers), **trivial}.items()}


def _unit_rates(
    asked: Sequence[Question],
    answers: Sequence[list[int]],
    pool: Sequence[Utterance],
    seed: int,
    vocabulary: Vocabulary,
) -> dict[str, Errors]:
    references = [hubert_units(question.target.speech_ids, vocabulary) for question in asked]
    trivial: dict[str, list[list[int]]] = _shuffled(answers) | {"nothing": [[] for _ in asked]}
    if pool:
        drawn = [_random(question, pool, seed).speech_ids for question in asked]
        trivial["random"] = [hubert_units(ids, vocabulary) for ids in drawn]
    return {name: unit_errors(references, given) for name, given in {"model": list(answers), **trivial}.items()}


def _mean(values: Iterable[int]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 3) if listed else None


def _shuffled(answers: Sequence[_T]) -> dict[str, list[_T]]:
    """Every question gets the answer to the one before: what an answer is worth without its question."""
    return {"shuffled": [*answers[-1:], *answers[:-1]]} if len(answers) > 1 else {}


def _random(question: Question, pool: Sequence[Utterance], seed: int) -> Utterance:
    return min(pool, key=lambda utterance: rank(seed, f"random/{question.target.key}/{utterance.key}"))


def _most_common(texts: Sequence[str]) -> str:
    counts = Counter(normalise(text) for text in texts)
    return min(counts, key=lambda text: (-counts[text], len(text), text))
