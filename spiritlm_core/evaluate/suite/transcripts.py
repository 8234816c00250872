"""Few-shot recognition and synthesis on a folder laid out like LibriSpeech (arXiv 2402.05755, section 4.2)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.evaluate.suite.reading import read_text
from spiritlm_core.evaluate.suite.task import Bench, Skipped, figure, measure
from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.finetune.example import known_streams
from spiritlm_core.finetune.fewshot import FewShot, FewShotConfig, run_few_shot
from spiritlm_core.finetune.rows import TaskRow
from spiritlm_core.finetune.template import find_template
from spiritlm_core.lake.fingerprint import digest
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.metrics.distances import normalise, unit_errors
from spiritlm_core.tokens.counter import key_of
from spiritlm_core.tokens.speech import from_string

if TYPE_CHECKING:
    from spiritlm_core.evaluate.suite.config import SuiteConfig
    from spiritlm_core.metrics.distances import Errors

_POOL = 64  # utterances that solved examples are drawn from, where there are so many


@dataclass(frozen=True)
class Utterance:
    """A recording and what is said; `text` is lower case where the transcript was upper case."""

    key: str
    text: str
    audio: Path


@dataclass(frozen=True)
class TranscriptTask:
    """A task made of transcribed recordings, see :class:`spiritlm_core.evaluate.suite.task.SuiteTask`.

    Attributes:
        name: as the user calls it.
        layout: how its folder is laid out.
        folder: where it was read from.
        utterances: all of them; once drawn, those that are asked.
        pool: once drawn, those that solved examples come from: other utterances, with other words.
        skipped: lines that are no transcript of a recording.
    """

    name: str
    layout: str
    folder: Path
    utterances: tuple[Utterance, ...]
    pool: tuple[Utterance, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def entries(self) -> int:
        """How many utterances it has."""
        return len(self.utterances)

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
        for template, arrow in (("asr", "S→T"), ("tts", "T→S")):
            bench.tell(f"{self.name} {arrow}")
            rows, skipped = _rows(self, bench, "text" if template == "asr" else "speech")
            found = _asked(template, rows, bench, shots) if any(row.split == "test" for row in rows) else None
            figures = list(_figures(template, found, rows, bench)) if found else []
            if found and template == "tts" and bench.config.recogniser:
                try:
                    figures += _heard_figures(found, rows, self, bench)
                except (ModelReferenceError, Rejection) as problem:
                    skipped.insert(0, Skipped("vocoder", f"the answers cannot be heard: {problem}"))
            items = len(found.right) if found else 0
            more = {"mean_shots": found.mean_shots, "answers": found.to_dict(answers=True)["answers"]} if found else {}
            yield measure(self, f"{arrow}, {shots} shots", items, figures, skipped, **more)


def read_librispeech(name: str, folder: Path) -> list[TranscriptTask]:
    """LibriSpeech: ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt``, and beside it the recordings it names.

    Raises:
        SourceError: a transcript cannot be read.
    """
    files = sorted(folder.glob("*/*/*.trans.txt"))
    found, skipped = [], []
    for path in files:
        for line in read_text(path).splitlines():
            key, _, text = line.strip().partition(" ")
            audio = next((file for end in (".flac", ".wav") if (file := path.parent / f"{key}{end}").is_file()), None)
            if audio is not None and normalise(text):
                found.append(Utterance(key, text.lower() if text.isupper() else text, audio))
            elif key:
                skipped.append(Skipped(key, f"{path.name}: {key} has {'no words' if audio else 'no recording'}"))
    return [TranscriptTask(name, "LibriSpeech", folder, tuple(found), (), tuple(skipped))] if files else []


def _rows(task: TranscriptTask, bench: Bench, answer: Kind) -> tuple[list[TaskRow], list[Skipped]]:
    """Utterances as few-shot rows with speech tokens; those whose answer, or alone whose question, is too long."""
    rows, skipped = [], []
    for split, members in (("train", task.pool), ("test", task.utterances)):
        for one in members:
            try:
                rows.append(_row(one, split, bench, answer))
            except (Rejection, SpiritLMError) as problem:
                if split == "test":
                    skipped.append(Skipped(one.key, str(problem)))
    return rows, skipped


def _row(one: Utterance, split: str, bench: Bench, answer: Kind) -> TaskRow:
    layout, most = bench.spirit.layout, bench.config.max_new_tokens
    tokens = known_streams(bench.heard.tokens(one.audio), layout.vocabulary)
    parts: dict[Kind, str] = {"text": one.text, "speech": tokens}
    question: Kind = "speech" if answer == "text" else "text"
    if (length := len(layout.prompt([(answer, parts[answer])], "any"))) > most:
        raise Rejection(f"the answer has {length} tokens, more than the {most} of max_new_tokens")
    if (length := len(layout.prompt([(question, parts[question])], answer))) + most > bench.context:
        raise Rejection(f"{length} tokens and an answer do not fit in the model's context, which holds {bench.context}")
    texts, recordings = json.dumps({"text": one.text}), json.dumps({"audio": {"tokens": tokens}})
    return TaskRow(digest(["suite", one.key]), one.key, str(one.audio), 1, split, texts=texts, recordings=recordings)


def _asked(template: str, rows: Sequence[TaskRow], bench: Bench, shots: int) -> FewShot:
    asked = [row for row in rows if row.split == "test"]
    config = FewShotConfig(
        shots=shots if len(asked) < len(rows) else 0,
        questions=len(asked),
        max_new_tokens=bench.config.max_new_tokens,
        bootstrap_samples=bench.config.bootstrap_samples,
        seed=bench.config.seed,
    )
    marked = [replace(row, split="held_out" if row.split == "test" else "train") for row in rows]
    return run_few_shot(
        bench.spirit, find_template(template), marked, SplitConfig(), config, batch_size=bench.batch_size
    )


def _figures(template: str, found: FewShot, rows: Sequence[TaskRow], bench: Bench) -> Iterator[dict[str, Any]]:
    pool = [row for row in rows if row.split == "train"]
    texts = [row.text_fields()["text"] for row in pool]
    if template == "asr":
        trivial = _trivial(found, texts, bench.config.seed)
        if texts:
            trivial["commonest transcript"] = [Counter(texts).most_common(1)[0][0]] * len(found.right)
        yield from _text_figures(found.right, found.given, trivial, bench.config)
        return
    speech = [str(row.recording_fields()["audio"].tokens) for row in pool]
    references, given = ([_units(tokens) for tokens in side] for side in (found.right, found.given))
    rates = {
        name: unit_errors(references, [_units(tokens) for tokens in answers]).rate
        for name, answers in _trivial(found, speech, bench.config.seed).items()
    }
    value = unit_errors(references, given).estimate(bench.config.bootstrap_samples, bench.config.seed)
    yield figure("unit error rate", value, trivial=rates, lower=True)


def _trivial(found: FewShot, pool: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Answers that need no model, or no question: nothing, that of another question, any train utterance."""
    count = len(found.right)
    answers = {"nothing": [""] * count}
    if count > 1:
        answers["answer to another question"] = [*found.given[-1:], *found.given[:-1]]
    if pool:
        answers["any train utterance"] = [pool[key_of(seed, right) % len(pool)] for right in found.right]
    return answers


def _text_figures(
    right: Sequence[str],
    given: Sequence[str],
    trivial: Mapping[str, Sequence[str]],
    config: SuiteConfig,
    *,
    of: str = "",
    heard: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """WER and CER; `heard` is what a judge makes of the recordings themselves, the ceiling."""
    from spiritlm_core.evaluate.recogniser import word_and_character_errors

    def errors(answers: Sequence[str]) -> tuple[Errors, Errors]:
        return word_and_character_errors(right, answers, config.language)

    trivials = {name: errors(answers) for name, answers in trivial.items()}
    ceilings, found = None if heard is None else errors(heard), errors(given)
    for number, name in enumerate(("WER", "CER")):
        value = found[number].estimate(config.bootstrap_samples, config.seed)
        rates = {who: each[number].rate for who, each in trivials.items()}
        ceiling = None if ceilings is None else ceilings[number].rate
        yield figure(f"{name}{of}", value, trivial=rates, ceiling=ceiling, lower=True)


def _heard_figures(
    found: FewShot, rows: Sequence[TaskRow], task: TranscriptTask, bench: Bench
) -> Iterator[dict[str, Any]]:
    """Error rates of what an independent recogniser hears in the answers, and in the recordings themselves.

    Raises:
        ModelReferenceError: there is no recogniser, or no vocoder.
        Rejection: the recogniser does not know the language.
    """
    from spiritlm_core.audio.waveform import as_waveform
    from spiritlm_core.evaluate.recogniser import fetched_recogniser

    bench.tell(f"{task.name}: recognising the answers")
    tokenizer = bench.spirit.speech_tokenizer
    _ = tokenizer.vocoder  # loaded now, or the reason why it cannot be
    judge, language = fetched_recogniser(str(bench.config.recogniser)), bench.config.language
    by_tokens = {str(row.recording_fields()["audio"].tokens): row for row in rows if row.split == "test"}
    asked = [by_tokens[tokens] for tokens in found.right]
    texts = [row.text_fields()["text"] for row in asked]
    said = [judge.hear(tokenizer.decode(tokens), language) if _units(tokens) else "" for tokens in found.given]
    original = [judge.hear(as_waveform(Path(row.source_uri)), language) for row in asked]
    trivial = {"nothing": [""] * len(texts), "answer to another question": [*said[-1:], *said[:-1]]}
    yield from _text_figures(texts, said, trivial, bench.config, of=" as recognised", heard=original)


def _units(tokens: str) -> list[int]:
    found: list[int] = from_string(tokens).hubert.tolist() if tokens else []
    return found
