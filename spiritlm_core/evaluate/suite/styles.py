"""Style preservation: does a continuation keep the sentiment of its prompt, within and across modalities?

The task of arXiv 2402.05755, section 5.2 (speech-text sentiment preservation): a prompt has a known style, the model
continues it in text or in speech, and a classifier that sees the continuation alone says which style that has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.evaluate.suite import judges
from spiritlm_core.evaluate.suite.pairs import DIRECTIONS, Direction, Labelled, LabelledTask, content_of
from spiritlm_core.evaluate.suite.task import Bench, Skipped, figure, summed_by
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.metrics.bootstrap import ratio


@dataclass(frozen=True)
class StyleTask(LabelledTask):
    """Whether a continuation keeps the style of its prompt."""

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """How often the continuation has the style of the prompt, in each direction."""
        for direction in DIRECTIONS:
            if direction.prefix not in self.kinds or direction.sides not in self.kinds:
                continue
            name = f"{direction.prefix[0].upper()}→{direction.sides[0].upper()}"
            bench.tell(f"{self.name} {name}")
            rows, prompts, skipped = _prompts(self, bench, direction)
            try:
                judge = _judge(self, bench, direction.sides)
            except SpiritLMError as problem:
                yield self.measure(name, 0, (), [*skipped, *(Skipped(row.key, str(problem)) for row in rows)])
                continue
            yield _measure(self, bench, (name, direction.sides), judge, rows, prompts, skipped)


def _prompts(
    task: StyleTask, bench: Bench, direction: Direction
) -> tuple[list[Labelled], list[tuple[Kind, str]], list[Skipped]]:
    rows, prompts, skipped = [], [], []
    for row in task.test:
        try:
            prompts.append(_prompt(row, bench, direction))
            rows.append(row)
        except (Rejection, SpiritLMError) as problem:
            skipped.append(Skipped(row.key, str(problem)))
    return rows, prompts, skipped


def _prompt(row: Labelled, bench: Bench, direction: Direction) -> tuple[Kind, str]:
    layout, context = bench.spirit.layout, bench.spirit.context
    part = (direction.prefix, content_of(layout, row.side, direction.prefix, bench.heard))
    length = len(layout.prompt([part], direction.sides))
    if length + bench.config.max_new_tokens > context:
        raise Rejection(f"{length} tokens and a continuation do not fit in the context, which holds {context}")
    return part


def _judge(task: StyleTask, bench: Bench, kind: Kind) -> judges.Judge:
    """The classifier of one modality. Raises SpiritLMError."""
    if kind == "text" and bench.config.text_judge:
        return judges.given_text_judge(bench.config.text_judge, task.labels)
    if kind == "speech" and bench.config.speech_judge:
        return judges.given_speech_judge(bench.config.speech_judge, task.labels, bench.spirit.speech_tokenizer)
    contents, labels = _known(task.train, bench, kind)
    if len(set(labels)) < 2:
        raise SpiritLMError("no classifier can be fitted: the train part has not two labels in this modality")
    fit = judges.fitted_text_judge if kind == "text" else judges.fitted_speech_judge
    return fit(contents, labels)


def _known(rows: Sequence[Labelled], bench: Bench, kind: Kind) -> tuple[list[str], list[str]]:
    """Contents and labels of the rows that have this modality."""
    answers = []
    for row in rows:
        try:
            answers.append((content_of(bench.spirit.layout, row.side, kind, bench.heard), row.label))
        except (Rejection, SpiritLMError):
            continue
    return [content for content, _ in answers], [label for _, label in answers]


def _measure(
    task: StyleTask,
    bench: Bench,
    asked: tuple[str, Kind],
    judge: judges.Judge,
    rows: Sequence[Labelled],
    prompts: Sequence[tuple[Kind, str]],
    skipped: Sequence[Skipped],
) -> dict[str, Any]:
    name, kind = asked
    given = _continued(bench, prompts, kind)
    said = judge(given)
    right = [float(label == row.label) for label, row in zip(said, rows, strict=True)]
    value = ratio(*summed_by([row.item for row in rows], right), **bench.draws)
    contents, labels = _known(task.test, bench, kind)
    ceiling = float(np.mean([a == b for a, b in zip(judge(contents), labels, strict=True)])) if labels else None
    commonest = Counter(row.label for row in rows).most_common(1)
    most = {"commonest label": commonest[0][1] / len(rows)} if commonest else {}
    shown = figure("style kept", value, chance=1 / max(1, len(task.labels)), trivial=most, ceiling=ceiling)
    answers = [
        {"key": row.key, "label": row.label, "judged": label, "given": content}
        for row, label, content in zip(rows, said, given, strict=True)
    ]
    return task.measure(name, len(rows), [shown], skipped, labels=list(task.labels), answers=answers)


def _continued(bench: Bench, prompts: Sequence[tuple[Kind, str]], kind: Kind) -> list[str]:
    """Text or speech tokens of each continuation, sampled with the seed."""
    config = bench.config
    answers = bench.spirit.generate_batch(
        [[prompt] for prompt in prompts],
        kind,
        batch_size=bench.batch_size,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    return [answer.text if kind == "text" else answer.tokens for answer in answers]
