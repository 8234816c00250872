"""Few-shot recognition and synthesis of transcribed recordings (arXiv 2402.05755, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.errors import ModelReferenceError, Rejection
from spiritlm_core.evaluate.clips import fetched_recogniser, word_and_character_errors
from spiritlm_core.evaluate.suite.task import Bench, Skipped, SuiteTask, figure, usable
from spiritlm_core.lm.generate.fewshot import Asked, FewShot, draw_shots
from spiritlm_core.lm.generate.prompts import Example, Kind, known_streams
from spiritlm_core.metrics.distances import Errors, errors, normalise, trivial_answers, units_of
from spiritlm_core.tokens.counter import key_of

_POOL = 64  # utterances that solved examples are drawn from, where there are so many
_TRIVIAL = {
    "nothing": "nothing",
    "shuffled": "answer to another question",
    "random": "any train utterance",
    "fixed": "commonest transcript",
}


@dataclass(frozen=True)
class Utterance:
    """A recording and what is said; `text` is lower case where the transcript was upper case."""

    key: str
    text: str
    audio: Path


@dataclass(frozen=True)
class _Answers:
    """What became of the questions of one direction."""

    asked: tuple[Utterance, ...]  # the utterances that could be asked
    right: list[str]  # the right answers, text or speech tokens
    given: list[str]  # those of the model
    pool: list[str]  # the answers of the train utterances
    mean_shots: float  # solved examples in front of a question, on average

    def trivial(self, seed: int, *, fixed: bool) -> dict[str, list[str]]:
        """Answers that need no model, or no question."""
        answers = trivial_answers(self.given, self.pool, [one.key for one in self.asked], seed, fixed=fixed)
        return {_TRIVIAL[name]: given for name, given in answers.items()}


@dataclass(frozen=True)
class TranscriptTask(SuiteTask):
    """A task made of transcribed recordings."""

    counted: ClassVar[str] = "utterances"
    utterances: tuple[Utterance, ...] = ()  # all of them; once drawn, those that are asked
    # once drawn, those that solved examples come from: other utterances, with other words
    pool: tuple[Utterance, ...] = ()

    def drawn(self, limit: int | None, seed: int) -> TranscriptTask:
        """With a pool of at most a third of all texts, and at most `limit` of the others."""
        texts = dict[str, Utterance]()
        for one in sorted(self.utterances, key=lambda one: key_of(seed, self.name, one.key)):
            texts.setdefault(normalise(one.text), one)
        rows = list(texts.values())
        pool = rows[: min(_POOL, len(rows) // 3)]
        return replace(self, pool=tuple(pool), utterances=tuple(rows[len(pool) :][:limit]))

    def recordings(self) -> list[Path]:
        """Its sound files."""
        return [one.audio for one in (*self.utterances, *self.pool)]

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """Error rates of speech to text, and of text to speech."""
        shots = bench.config.shots if self.pool else 0
        ways: tuple[tuple[Kind, str], ...] = (("text", "S→T"), ("speech", "T→S"))
        for kind, arrow in ways:
            bench.tell(f"{self.name} {arrow}")
            answers, skipped = _ask(self, bench, kind, shots)
            figures = list(_figures(answers, bench, kind))
            if kind == "speech" and bench.config.recogniser:
                bench.tell(f"{self.name}: recognising the answers")
                try:
                    figures += _heard_figures(answers, bench)
                except (ModelReferenceError, Rejection) as problem:
                    skipped.insert(0, Skipped("vocoder", f"the answers cannot be heard: {problem}"))
            pairs = [
                {"right": right, "given": given} for right, given in zip(answers.right, answers.given, strict=True)
            ]
            offered = {"offered": "transcribe" if kind == "text" else "say"}
            more = {**offered, "mean_shots": answers.mean_shots, "answers": pairs} if pairs else {}
            yield self.measure(f"{arrow}, {shots} shots", len(pairs), figures if pairs else (), skipped, **more)


def _ask(task: TranscriptTask, bench: Bench, kind: Kind, shots: int) -> tuple[_Answers, list[Skipped]]:
    """Ask every utterance whose answer, and whose question with an answer, is not too long."""
    asked: Kind = "speech" if kind == "text" else "text"
    most, batch_size = bench.config.max_new_tokens, bench.batch_size
    heard = kind == "text"
    fewshot = FewShot(bench.spirit, asked, kind, transcribes=heard, max_new_tokens=most, batch_size=batch_size)
    example_of = partial(_example, bench=bench, kind=kind)
    (pool, _), (examples, skipped) = (usable(part, example_of) for part in (task.pool, task.utterances))
    laid_out: list[Asked] = []

    def words(one: Utterance) -> str:
        return normalise(one.text)

    for one, example in examples.items():
        drawn = draw_shots([*pool], one, shots, bench.config.seed, key=attrgetter("key"), said=words, balanced=False)
        laid_out.append(fewshot.lay_out(example.question, [pool[shot] for shot in drawn]))
    mean_shots = sum(one.shots for one in laid_out) / max(1, len(laid_out))
    right, train = ([getattr(example, kind) for example in part.values()] for part in (examples, pool))
    return _Answers(tuple(examples), right, fewshot.answers(laid_out), train, mean_shots), skipped


def _example(one: Utterance, bench: Bench, kind: Kind) -> Example:
    layout, most, context = bench.spirit.layout, bench.config.max_new_tokens, bench.spirit.context
    text = (("text", layout.known(one.text)),)
    speech = (("speech", known_streams(bench.heard.tokens(one.audio), layout.vocabulary)),)
    example = Example(speech, text) if kind == "text" else Example(text, speech)  # type: ignore[arg-type]
    if (length := len(layout.prompt(example.answer, "any"))) > most:
        raise Rejection(f"the answer has {length} tokens, more than the {most} of max_new_tokens")
    if (length := len(layout.prompt(example.question, kind))) + most > context:
        raise Rejection(f"{length} tokens and an answer do not fit in the model's context, which holds {context}")
    return example


def _figures(answers: _Answers, bench: Bench, kind: Kind) -> Iterator[dict[str, Any]]:
    if kind == "text":
        trivial = answers.trivial(bench.config.seed, fixed=True)
        yield from _error_rates(answers.right, answers.given, trivial, bench)
        return
    trivial = answers.trivial(bench.config.seed, fixed=False)
    rates = {name: errors(answers.right, given, units_of).rate for name, given in trivial.items()}
    value = errors(answers.right, answers.given, units_of).estimate(**bench.draws)
    yield figure("unit error rate", value, trivial=rates, lower=True)


def _heard_figures(answers: _Answers, bench: Bench) -> Iterator[dict[str, Any]]:
    """Error rates of what an independent recogniser hears in the answers, and in the recordings themselves.

    Raises ModelReferenceError: there is no recogniser, or no vocoder; Rejection: the recogniser does not know the
    language.
    """
    tokenizer = bench.spirit.speech_tokenizer
    _ = tokenizer.vocoder  # loaded now, or the reason why it cannot be
    judge, language = fetched_recogniser(str(bench.config.recogniser)), bench.config.language
    texts = [one.text for one in answers.asked]
    said = [judge.hear(tokenizer.decode(tokens), language) if units_of(tokens) else "" for tokens in answers.given]
    original = [judge.hear(as_waveform(one.audio), language) for one in answers.asked]
    trivial = {"nothing": [""] * len(texts), "answer to another question": [*said[-1:], *said[:-1]]}
    return _error_rates(texts, said, trivial, bench, of=" as recognised", heard=original)


def _error_rates(
    right: Sequence[str],
    given: Sequence[str],
    trivial: Mapping[str, Sequence[str]],
    bench: Bench,
    *,
    of: str = "",
    heard: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """WER and CER; `heard` is what a judge makes of the recordings themselves, the ceiling."""

    def both(answers: Sequence[str]) -> tuple[Errors, Errors]:
        return word_and_character_errors(right, answers, bench.config.language)

    trivials = {name: both(answers) for name, answers in trivial.items()}
    ceilings, counted = None if heard is None else both(heard), both(given)
    for number, name in enumerate(("WER", "CER")):
        rates = {who: each[number].rate for who, each in trivials.items()}
        ceiling = None if ceilings is None else ceilings[number].rate
        value = counted[number].estimate(**bench.draws)
        yield figure(f"{name}{of}", value, trivial=rates, ceiling=ceiling, lower=True)
