"""Few-shot tasks: solved examples from the train rows, then a held-out question (arXiv 2402.05755, section 4.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.finetune.example import Example, Parts, fill, joined, known_streams
from spiritlm_core.finetune.rows import TaskRow, commonest, split_of
from spiritlm_core.finetune.speech import speak
from spiritlm_core.finetune.template import Template
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.metrics.error_rates import judge
from spiritlm_core.tokens.counter import key_of

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM


class FewShotConfig(FrozenConfig):
    """How a few-shot task is asked."""

    shots: int = Field(5, ge=0, description="Solved examples in front of each question.")
    questions: int = Field(100, ge=1, description="Most held-out rows to ask.")
    max_new_tokens: int = Field(200, ge=1, description="Longest answer in tokens.")
    bootstrap_samples: int = Field(1000, ge=100, description="Resamples behind each confidence interval.")
    seed: int = Field(0, ge=0, description="Of questions, shots and intervals.")


@dataclass(frozen=True)
class FewShot:
    """A few-shot task, asked.

    Attributes:
        task: name of the template.
        figures: as :func:`spiritlm_core.metrics.error_rates.judge` gives them.
        mean_shots: solved examples in front of a question, on average; those that did not fit are left out.
        rejected: why a row could not be used, and how many there are.
        right: the right answers.
        given: those of the model.
    """

    task: str
    figures: Mapping[str, Any]
    mean_shots: float
    rejected: Mapping[str, int]
    right: tuple[str, ...]
    given: tuple[str, ...]

    def to_dict(self, *, answers: bool = False) -> dict[str, Any]:
        """JSON-able."""
        pairs = [{"right": right, "given": given} for right, given in zip(self.right, self.given, strict=True)]
        found = {
            "task": self.task,
            "questions": len(self.right),
            "mean_shots": round(self.mean_shots, 3),
            **self.figures,
            "rejected": dict(self.rejected),
        }
        return {**found, "answers": pairs} if answers else found


@dataclass(frozen=True)
class _Question:
    row: TaskRow
    shots: tuple[TaskRow, ...]


def run_few_shot(
    spirit: SpiritLM,
    template: Template,
    rows: Sequence[TaskRow],
    split: SplitConfig,
    config: FewShotConfig,
    *,
    batch_size: int = 8,
) -> FewShot:
    """Ask a model held-out rows, each behind solved examples drawn from the train rows.

    Labels are compared by their likelihood; other answers are generated, and end where the next question would begin.
    Only recordings that are shown are encoded.

    Args:
        spirit: the model.
        template: the task.
        rows: of the data set.
        split: which rows are held out where the data does not say it.
        config: how much is asked.
        batch_size: prompts in one forward pass.

    Raises:
        SourceError: no good row is held out, or there are none to draw solved examples from.
        ModelReferenceError: there are recordings, and no speech tokenizer.
    """
    train, held_out = (_split(rows, split, name) for name in ("train", "held_out"))
    asked = [
        _Question(row, _shots(row, train, template, config)) for row in _drawn(held_out, config)[: config.questions]
    ]
    rejected = Counter(row.error for row in rows if row.error)
    if not asked or (config.shots and not train):
        raise SourceError(
            f"{len(train)} rows are in the train split, {len(held_out)} are held out, and both are needed: "
            f"see --split-column and --held-out. Rejected: {commonest(rejected) or 'none'}"
        )
    examples = _examples(spirit, template, asked, rejected)
    labels = _labels(template, train)
    if template.metric == "accuracy" and not labels:
        raise SourceError(
            "no train row has a label, and the template lists none: set `labels` in a template of your own"
        )
    task = _Task(spirit, template, config, examples, labels, batch_size)
    fitting = [question for question in asked if question.row.key in examples and task.fits(question)]
    if too_long := sum(question.row.key in examples for question in asked) - len(fitting):
        rejected[f"too long: question and answer take more than the model's context of {task.context} tokens"] = (
            too_long
        )
    if not fitting:
        raise SourceError(f"no held-out row can be used: {commonest(rejected)}")
    return task.run(fitting, rejected)


def _split(rows: Sequence[TaskRow], config: SplitConfig, name: str) -> list[TaskRow]:
    return [row for row in rows if not row.error and split_of(row.key[:20], row.split, config) == name]


def _drawn(rows: Sequence[TaskRow], config: FewShotConfig) -> list[TaskRow]:
    return sorted(rows, key=lambda row: key_of(config.seed, row.key))


def _answer(row: TaskRow, template: Template) -> str:
    """The answer of a row as far as it is text."""
    texts = row.text_fields()
    try:
        return fill(template.answer, template.answer, texts, {}).text
    except Rejection:
        return ""


def _labels(template: Template, train: Sequence[TaskRow]) -> tuple[str, ...]:
    if template.metric != "accuracy":
        return ()
    return template.labels or tuple(sorted({answer for row in train if (answer := _answer(row, template))}))


def _shots(target: TaskRow, train: Sequence[TaskRow], template: Template, config: FewShotConfig) -> tuple[TaskRow, ...]:
    """Solved examples for one question, drawn by the seed; of labels, as many of each as may be."""
    drawn = sorted(train, key=lambda row: key_of(config.seed, target.key, row.key))
    if template.metric == "accuracy":
        seen: Counter[str] = Counter()
        turns = []
        for row in drawn:
            label = _answer(row, template)
            turns.append(seen[label])
            seen[label] += 1
        drawn = [row for _, row in sorted(zip(turns, drawn, strict=True), key=lambda pair: pair[0])]
        drawn = sorted(drawn[: config.shots], key=lambda row: key_of(config.seed, "order", target.key, row.key))
    return tuple(drawn[: config.shots])


def _examples(
    spirit: SpiritLM, template: Template, asked: Sequence[_Question], rejected: Counter[str]
) -> dict[str, Example]:
    """The examples of all rows that are shown, by key; `rejected` counts why others cannot be."""
    shown = list({row.key: row for question in asked for row in (question.row, *question.shots)}.values())
    found: dict[str, Example] = {}
    for row, spoken in zip(shown, speak(shown, lambda: spirit.speech_tokenizer), strict=True):
        try:
            if spoken.error is not None:
                raise spoken.error
            speech = {field: known_streams(tokens, spirit.vocabulary) for field, tokens in spoken.tokens.items()}
            found[row.key] = fill(template.question, template.answer, row.text_fields(), _known(spirit, speech))
        except SpiritLMError as problem:
            rejected[f"{problem}: row {row.place}"] += 1
        except Rejection as problem:
            rejected[str(problem)] += 1
    return found


def _known(spirit: SpiritLM, speech: Mapping[str, str]) -> Mapping[str, str]:
    """`speech` itself. Raises SpiritLMError if the model lacks one of the tokens."""
    for tokens in speech.values():
        spirit.speech_ids(tokens)
    return speech


@dataclass(frozen=True)
class _Task:
    spirit: SpiritLM
    template: Template
    config: FewShotConfig
    examples: Mapping[str, Example]
    labels: tuple[str, ...]
    batch_size: int

    def run(self, asked: Sequence[_Question], rejected: Mapping[str, int]) -> FewShot:
        prompts, counts = [], []
        for question in asked:
            prompt, count = self._prompt(question)
            prompts.append(prompt)
            counts.append(count)
        right = [self._side(self.examples[question.row.key]) for question in asked]
        given = self._compare(prompts) if self.template.metric == "accuracy" else self._continue(prompts)
        figures = judge(
            self.template.metric,
            right,
            given,
            labels=self.labels,
            samples=self.config.bootstrap_samples,
            seed=self.config.seed,
        )
        return FewShot(self.template.name, figures, sum(counts) / len(counts), rejected, tuple(right), tuple(given))

    @property
    def context(self) -> int:
        """Tokens that the model takes."""
        return int(self.spirit.model.config.max_position_embeddings)

    def fits(self, question: _Question) -> bool:
        """Whether a question can be asked, without solved examples and with the shortest answer if need be."""
        least = self._room if self.template.metric == "accuracy" else 1
        return len(self._ids((), self.examples[question.row.key].question)) + least <= self.context

    def _side(self, example: Example) -> str:
        return example.speech if self.template.metric == "unit_error_rate" else example.text or example.speech

    def _prompt(self, question: _Question) -> tuple[list[int], int]:
        """The prompt with as many shots as the context holds, and their number."""
        shots = [self.examples[row.key] for row in question.shots if row.key in self.examples]
        own = self.examples[question.row.key].question
        while True:
            prompt = self._ids(shots, own)
            if not shots or len(prompt) + self._room <= self.context:
                return prompt, len(shots)
            shots.remove(max(shots, key=_length))

    def _ids(self, shots: Sequence[Example], question: Parts) -> list[int]:
        parts = [part for shot in shots for part in (*shot.question, *shot.answer)]
        return self.spirit.layout.prompt(joined([*parts, *question]), self._kind or "any")

    @cached_property
    def _room(self) -> int:
        """Tokens that the longest answer may have."""
        from spiritlm_core.finetune.answers import label_ids

        if self.template.metric != "accuracy":
            return self.config.max_new_tokens
        return max(len(label_ids(self.spirit.layout, label, ends=False)) for label in self.labels)

    @property
    def _kind(self) -> Kind | None:
        return self.template.answer_kind

    def _compare(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        from spiritlm_core.finetune.answers import label_ids
        from spiritlm_core.finetune.likelihood import most_likely

        ids = [label_ids(self.spirit.layout, label, ends=False) for label in self.labels]
        found = most_likely(self.spirit.model, self.spirit.vocabulary, prompts, ids, self.batch_size)
        return [self.labels[i] for i in found]

    def _continue(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        from spiritlm_core.finetune.answers import continue_prompts, other

        first = self.template.question[0]
        ends = self._kind is not None and first.kind != self._kind
        stop = [other(self._kind)] if ends and self._kind else []
        modality = self._kind or "any"
        most = self.config.max_new_tokens
        found = continue_prompts(self.spirit, prompts, modality, most, stop=stop, batch_size=self.batch_size)
        if ends or first.text is None or not first.begins_fixed():
            return found
        lead = first.text.partition("{")[0].strip()  # text behind text: the next question begins with these words
        return [answer.partition(lead)[0].strip() for answer in found]


def _length(example: Example) -> int:
    return sum(len(content) for _, content in (*example.question, *example.answer))
