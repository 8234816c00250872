"""Few-shot tasks on a user's data: solved examples from the train rows, then a held-out question."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import Rejection, SourceError, SpiritLMError
from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.finetune.rows import TaskRow, commonest, speak, split_of
from spiritlm_core.finetune.stage import fill
from spiritlm_core.finetune.template import Template, first_kind
from spiritlm_core.lm.generate.fewshot import Asked, FewShot, draw_shots
from spiritlm_core.lm.generate.prompts import Example, known_streams
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.distances import judge
from spiritlm_core.tokens.counter import key_of


class FewShotConfig(FrozenConfig):
    """How a few-shot task is asked."""

    shots: int = Field(5, ge=0, description="Solved examples in front of each question.")
    questions: int = Field(100, ge=1, description="Most held-out rows to ask.")
    max_new_tokens: int = Field(200, ge=1, description="Longest answer in tokens.")
    bootstrap_samples: int = Field(1000, ge=100, description="Resamples behind each confidence interval.")
    seed: int = Field(0, ge=0, description="Of questions, shots and intervals.")


@dataclass(frozen=True)
class Answered:
    """A few-shot task, asked."""

    task: str  # name of the template
    figures: Mapping[str, Any]  # as `judge` gives them
    mean_shots: float  # solved examples in front of a question, on average; those that did not fit are left out
    rejected: Mapping[str, int]  # why a row could not be used, and how many there are
    right: tuple[str, ...]  # the right answers
    given: tuple[str, ...]  # those of the model

    def to_dict(self, *, answers: bool = False) -> dict[str, Any]:
        """JSON-able."""
        pairs = [{"right": right, "given": given} for right, given in zip(self.right, self.given, strict=True)]
        figures = {
            "task": self.task,
            "questions": len(self.right),
            "mean_shots": round(self.mean_shots, 3),
            **self.figures,
            "rejected": dict(self.rejected),
        }
        return {**figures, "answers": pairs} if answers else figures


def run_few_shot(
    spirit: SpiritLM,
    template: Template,
    rows: Sequence[TaskRow],
    split: SplitConfig,
    config: FewShotConfig,
    *,
    batch_size: int = 8,
) -> Answered:
    """Ask a model held-out rows, each behind solved examples drawn from the train rows.

    Labels are compared by their likelihood; other answers are generated, and end where the next question would begin.
    Only recordings that are shown are encoded. `split` says which rows are held out where the data does not. Raises
    SourceError: no good row is held out, or there are none to draw solved examples from; ModelReferenceError: there are
    recordings, and no speech tokenizer.
    """
    train, held_out = (_split(rows, split, name) for name in ("train", "held_out"))
    asked = sorted(held_out, key=lambda row: key_of(config.seed, row.key))[: config.questions]
    rejected = Counter(row.error for row in rows if row.error)
    if not asked or (config.shots and not train):
        raise SourceError(
            f"{len(train)} rows are in the train split, {len(held_out)} are held out, and both are needed: "
            f"see --split-column and --held-out. Rejected: {commonest(rejected) or 'none'}"
        )
    said = {row.key: _said(row, template) for row in (*train, *asked)}
    even = template.metric == "accuracy"
    draw = partial(draw_shots, train, key=attrgetter("key"), said=lambda row: said[row.key], balanced=even)
    shots = {row.key: draw(row, config.shots, config.seed) for row in asked}
    examples = _examples(spirit, template, [(row, *shots[row.key]) for row in asked], rejected)
    fewshot = _few_shot(spirit, template, _labels(template, [said[row.key] for row in train]), config, batch_size)
    laid_out: dict[str, Asked] = {}
    for key in (row.key for row in asked if row.key in examples):
        try:
            solved = [examples[shot.key] for shot in shots[key] if shot.key in examples]
            laid_out[key] = fewshot.lay_out(examples[key].question, solved)
        except Rejection as problem:
            rejected[str(problem)] += 1
    if not laid_out:
        raise SourceError(f"no held-out row can be used: {commonest(rejected)}")
    right = [_side(examples[key], template) for key in laid_out]
    if template.metric == "wer":
        right = [spirit.layout.known(text) for text in right]
    given = fewshot.answers(list(laid_out.values()))
    resampled = {"samples": config.bootstrap_samples, "seed": config.seed}
    figures = judge(template.metric, right, given, labels=fewshot.labels, **resampled)
    mean_shots = sum(one.shots for one in laid_out.values()) / len(laid_out)
    return Answered(template.name, figures, mean_shots, rejected, tuple(right), tuple(given))


def _split(rows: Sequence[TaskRow], config: SplitConfig, name: str) -> list[TaskRow]:
    return [row for row in rows if not row.error and split_of(row.key[:20], row.split, config) == name]


def _said(row: TaskRow, template: Template) -> str:
    """The answer of a row as far as it is text."""
    try:
        return fill(template.answer, template.answer, row.text_fields(), {}).text
    except Rejection:
        return ""


def _few_shot(
    spirit: SpiritLM, template: Template, labels: tuple[str, ...], config: FewShotConfig, batch_size: int
) -> FewShot:
    first = template.question[0]
    lead = str(first.text).partition("{")[0].strip() if first.begins_fixed() else ""
    options: dict[str, Any] = {"lead": lead, "max_new_tokens": config.max_new_tokens, "batch_size": batch_size}
    transcribes = template.metric == "wer" and {part.kind for part in template.question} == {"speech"}
    return FewShot(spirit, first.kind, first_kind(template.answer), labels, transcribes, **options)


def _labels(template: Template, train: Iterable[str]) -> tuple[str, ...]:
    """The labels to choose from; none where answers are written. Raises SourceError if nobody names any."""
    if template.metric != "accuracy":
        return ()
    labels = template.labels or tuple(sorted({label for label in train if label}))
    if not labels:
        raise SourceError(
            "no train row has a label, and the template lists none: set `labels` in a template of your own"
        )
    return labels


def _examples(
    spirit: SpiritLM, template: Template, asked: Iterable[Sequence[TaskRow]], rejected: Counter[str]
) -> dict[str, Example]:
    """The examples of all rows that are shown, by key; `rejected` counts why others cannot be."""
    shown = list({row.key: row for rows in asked for row in rows}.values())
    examples: dict[str, Example] = {}
    for row, spoken in zip(shown, speak(shown, lambda: spirit.speech_tokenizer), strict=True):
        try:
            if spoken.error is not None:
                raise spoken.error
            speech = {field: known_streams(tokens, spirit.vocabulary) for field, tokens in spoken.tokens.items()}
            for tokens in speech.values():
                spirit.layout.speech_ids(tokens)  # raises if the model lacks one of them
            examples[row.key] = fill(template.question, template.answer, row.text_fields(), speech)
        except SpiritLMError as problem:
            rejected[f"{problem}: row {row.place}"] += 1
        except Rejection as problem:
            rejected[str(problem)] += 1
    return examples


def _side(example: Example, template: Template) -> str:
    return example.speech if template.metric == "unit_error_rate" else example.text or example.speech
