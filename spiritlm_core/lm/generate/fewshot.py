"""Few-shot questions: solved examples in front, and an answer that is written, or chosen among labels.

The prompts are those of Spirit LM (arXiv 2402.05755, section 4.2). The held-out evaluation, the suite and
``spiritlm fewshot`` all draw, lay out and ask this way.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spiritlm_core.errors import Rejection
from spiritlm_core.lm.generate.likelihood import Judged, judged, log_likelihoods
from spiritlm_core.lm.generate.prompts import Example, Kind, Modality, Parts, joined, turns
from spiritlm_core.tokens.counter import key_of

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM

_T = TypeVar("_T")


@dataclass(frozen=True)
class Asked:
    """A question behind solved examples."""

    prompt: tuple[int, ...]  # token ids up to the marker of the answer
    shots: int  # how many solved examples stand in front; those that the context does not hold are left out
    options: tuple[Judged, ...] = ()  # what is judged of each label; none where the answer is written


@dataclass(frozen=True)
class FewShot:
    """How the questions of a task are asked."""

    spirit: SpiritLM  # the model
    asked: Kind  # modality that every question begins with
    kind: Kind | None  # modality that every answer begins with; None if that depends on the question
    labels: tuple[str, ...] = ()  # the answers there are, as text; none where answers are written
    lead: str = ""  # words that every question begins with; they end a written answer of the question's modality
    max_new_tokens: int = 200  # longest written answer
    context: int | None = None  # longest prompt with its answer, in tokens; None: as long as the model takes
    batch_size: int = 8  # prompts continued at once

    def lay_out(self, question: Parts, shots: Sequence[Example] = ()) -> Asked:
        """The prompt of a question; solved examples that do not fit are left out, the longest first.

        Raises Rejection: the context does not hold the question alone; SpiritLMError: a speech token is not of this
        model.
        """
        shown = list(shots)
        while True:
            try:
                return self._laid_out(question, shown)
            except Rejection:
                if not shown:
                    raise
                shown.remove(max(shown, key=len))

    def _laid_out(self, question: Parts, shown: Sequence[Example]) -> Asked:
        parts = joined([*(part for shot in shown for part in (*shot.question, *shot.answer)), *question])
        if self.labels:
            options = tuple(judged(self.spirit, parts, "text", label) for label in self.labels)
            return Asked(options[0].prompt, len(shown), options)
        prompt = self.spirit.layout.prompt(parts, self.kind or "any")
        context = self.context or self.spirit.context
        if len(prompt) + (self.max_new_tokens if shown else 1) > context:
            raise Rejection(f"too long: question and answer take more than the model's context of {context} tokens")
        return Asked(tuple(prompt), len(shown))

    def answers(self, asked: Sequence[Asked]) -> list[str]:
        """The answer to each question: what the model writes, or the label that it finds most likely."""
        if not asked:
            return []
        if self.labels:
            return [self.labels[i] for i in self.likelihoods(asked).argmax(axis=1)]
        stop = turns(self.kind or "any") if self.asked != self.kind else ()
        prompts = [one.prompt for one in asked]
        written = write(self.spirit, prompts, self.kind or "any", self.max_new_tokens, stop, self.batch_size)
        lead = self.spirit.layout.known(self.lead)
        return [_before(lead, one) for one in written] if lead and not stop else written

    def likelihoods(self, asked: Sequence[Asked]) -> np.ndarray:
        """Log-likelihood of each label in nats, summed over its tokens: float64[questions, labels]."""
        options = [option for one in asked for option in one.options]
        return log_likelihoods(self.spirit, options).reshape(len(asked), -1)


def _before(lead: str, answer: str) -> str:
    """An answer up to the next question, which begins with `lead`, not in the middle of a word."""
    end = r"(?!\w)" if lead[-1].isalnum() else ""
    return re.split(rf"(?<!\w){re.escape(lead)}{end}", answer, maxsplit=1)[0].strip()


def write(
    spirit: SpiritLM,
    prompts: Sequence[Sequence[int]],
    modality: Modality,
    most: int,
    stop: Iterable[str] = (),
    batch_size: int = 16,
) -> list[str]:
    """Greedy answers of at most `most` tokens, as text or as speech tokens; `stop` are tokens that end one, too."""
    from spiritlm_core.lm.generate.decode import generate

    new = generate(
        spirit.model,
        spirit.vocabulary,
        prompts,
        modality=modality,
        max_new_tokens=most,
        stop_ids=[spirit.layout.added[token] for token in stop],
        lacking=[] if modality == "text" else spirit.lacking,
        batch_size=batch_size,
    )
    answers = (spirit.layout.read(prompt, ids, modality) for prompt, ids in zip(prompts, new, strict=True))
    return ["".join(segment.content for segment in segments) for segments in answers]


def draw_shots(
    pool: Sequence[_T],
    target: _T,
    most: int,
    seed: int,
    *,
    key: Callable[[_T], str],
    said: Callable[[_T], str],
    balanced: bool,
) -> list[_T]:
    """At most `most` solved examples for the question `target`, drawn from `pool` by the seed and the question.

    `key` names a row, and `said` gives its label or its words, ``""`` if it has none. If `balanced`, as many of each
    label are drawn as may be, in any order; else what says the same as the target is not drawn.
    """
    if balanced:
        drawn = by_turns(pool, said, lambda row: key_of(seed, key(target), key(row)))[:most]
        return sorted(drawn, key=lambda row: key_of(seed, "order", key(target), key(row)))
    same = said(target)
    others = (row for row in pool if not same or said(row) != same)
    return sorted(others, key=lambda row: key_of(seed, key(target), key(row)))[:most]


def by_turns(rows: Iterable[_T], group: Callable[[_T], Any], order: Callable[[_T], Any]) -> list[_T]:
    """The rows in an order in which their groups take turns; rows of a group, and of a turn, are sorted by `order`."""
    numbers: dict[Any, Iterator[int]] = defaultdict(count)
    numbered = [(next(numbers[group(row)]), row) for row in sorted(rows, key=order)]
    return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]
