"""Few-shot speech→text and text→speech on held-out utterances (Spirit LM, arXiv 2402.05755, section 4.2).

A prompt holds solved examples from train, then the question: ``[Speech]…[Text]… … [Speech]… [Text]`` and the
other way round. The answer ends where the model leaves the modality asked for. What needs no model stands
beside every rate, because a small model may do no better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from statistics import mode
from typing import TYPE_CHECKING, Any

from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.corpus import Utterance, pick, recorded
from spiritlm_core.evaluate.trivial import trivial_answers
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.fewshot import FewShot, draw_shots
from spiritlm_core.lm.generate.prompts import Example, Kind
from spiritlm_core.metrics.distances import Errors, collapse, normalise, unit_errors, word_errors
from spiritlm_core.metrics.verdicts import Offered, Verdict, beats_trivial
from spiritlm_core.tokens.speech import from_string

if TYPE_CHECKING:
    from spiritlm_core.evaluate.heldout.answers import Evaluated

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
    """One few-shot task, asked.

    Attributes:
        name: One of :data:`TASKS`.
        questions: What was asked.
        wanted: Solved examples that each question was to have.
        shots: Those in front of each; fewer where the context does not hold them.
        answers: Of the model, text or speech tokens.
        rates: Errors of the model's answers ("model") and of answers that need no model.
        answer_lengths: Words, or collapsed HuBERT units, of each answer.
        held_out: Held-out utterances with text and speech, short enough or not.
    """

    name: str
    questions: tuple[Utterance, ...]
    wanted: int
    shots: tuple[int, ...]
    answers: tuple[str, ...]
    rates: Mapping[str, Errors]
    answer_lengths: tuple[int, ...]
    held_out: int

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
    tables: Mapping[str, TableView], config: EvaluateConfig, context_length: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Held-out utterances to ask, and the train utterances that shots are drawn from: what people said, if anything.

    Only utterances are asked whose answer fits in `max_new_tokens` and, as a prompt, in the context.
    """
    sequences, said = tables["sequences"], recorded(tables["audio"], "train")
    room = context_length - config.max_new_tokens

    def short(utterance: Utterance) -> bool:
        longest = max(len(utterance.speech_ids), len(utterance.text_ids))
        return bool(utterance.words) and longest <= config.max_new_tokens and utterance.tokens < room

    pool = pick(sequences, "train", _POOL, config.seed, lambda one: one.key in said and short(one))
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
    fewshot = FewShot(evaluated.spirit, *kinds, max_new_tokens=most, context=context)
    laid_out = []
    for target in asked:
        drawn = draw_shots(
            pool, target, shots, config.seed, key=attrgetter("key"), said=attrgetter("words"), balanced=False
        )
        solved = [_example(shot, kinds, evaluated) for shot in drawn]
        laid_out.append(fewshot.lay_out(_example(target, kinds, evaluated).question, solved))
    answers, keys = fewshot.answers(laid_out), [target.key for target in asked]
    text, items = kinds[1] == "text", _words_of if kinds[1] == "text" else _units_of
    train = [utterance.text if text else evaluated.speech(utterance.speech_ids) for utterance in pool]
    right = [target.text if text else evaluated.speech(target.speech_ids) for target in asked]
    given = {"model": answers, **trivial_answers(answers, train, keys, config.seed, fixed=text)}
    language = mode([target.language for target in asked]) if asked else None
    errors: Callable[..., Errors] = partial(word_errors, language=language) if text else _unit_errors
    rates = {who: errors(right, theirs) for who, theirs in given.items()}
    lengths = tuple(len(items(answer)) for answer in answers)
    shown = tuple(one.shots for one in laid_out)
    return Task(task, tuple(asked), shots, shown, tuple(answers), rates, lengths, held_out)


def _example(utterance: Utterance, kinds: tuple[Kind, Kind], evaluated: Evaluated) -> Example:
    """Question and answer in the modalities `kinds`; the text is that of its tokens."""
    sides = {"text": evaluated.text(utterance.text_ids), "speech": evaluated.speech(utterance.speech_ids)}
    asked, kind = kinds
    return Example(((asked, sides[asked]),), ((kind, sides[kind]),))


def _words_of(answer: str) -> list[str]:
    return normalise(answer).split()


def _units_of(tokens: str) -> list[int]:
    """HuBERT units, runs collapsed."""
    return collapse(from_string(tokens).hubert.tolist())


def _unit_errors(references: Sequence[str], answers: Sequence[str]) -> Errors:
    return unit_errors([_units_of(tokens) for tokens in references], [_units_of(tokens) for tokens in answers])


def _mean(values: Iterable[int]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 3) if listed else None
