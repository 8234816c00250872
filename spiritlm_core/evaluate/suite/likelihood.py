"""The log-likelihood of both sides of a pair, given what stands in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.evaluate.suite.pairs import Direction, Pair, Side
from spiritlm_core.evaluate.suite.task import Skipped
from spiritlm_core.evaluate.suite.units import Recordings
from spiritlm_core.finetune.example import joined, known_streams
from spiritlm_core.lm.generate.prompts import Kind

if TYPE_CHECKING:
    from spiritlm_core.lm.formats import PromptFormat
    from spiritlm_core.lm.generate.spirit import SpiritLM

_ROUNDING = 1e-6  # of float32, relative: sides that are nearer to each other are equally likely


@dataclass(frozen=True)
class Judged:
    """What a model is given, and what it is judged on.

    Attributes:
        prompt: ids of BOS, the prefix, and the marker of the side's modality.
        answer: ids of the side; at least one.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of the pairs that could be scored.

    Attributes:
        pairs: these pairs, P of them.
        sums: float64[P, 2], log-likelihood in nats of the good and of the bad side, summed over tokens.
        tokens: int64[P, 2], how many tokens they have.
        skipped: the others.
    """

    pairs: tuple[Pair, ...]
    sums: np.ndarray
    tokens: np.ndarray
    skipped: tuple[Skipped, ...]

    @property
    def means(self) -> np.ndarray:
        """float64[P, 2], the same by the number of tokens."""
        found: np.ndarray = self.sums / self.tokens
        return found


def preferred(values: np.ndarray) -> np.ndarray:
    """1 where the first of two is larger, 0.5 where both are equal but for rounding, else 0: float64[P] of [P, 2]."""
    good, bad = values[:, 0], values[:, 1]
    found: np.ndarray = np.where(np.isclose(good, bad, rtol=_ROUNDING, atol=0), 0.5, (good > bad).astype(float))
    return found


def score(
    spirit: SpiritLM, pairs: Sequence[Pair], direction: Direction, recordings: Recordings, batch_size: int = 8
) -> Scores:
    """Log-likelihoods of both sides of each pair.

    The marker in front of a side is given, not judged; so is the prefix. Text that follows text is tokenized together
    with it, separated by a space, and judged from the first token that differs from those of the prefix alone.

    Args:
        spirit: the model.
        pairs: any.
        direction: which forms are compared.
        recordings: the speech tokens of all their sound files.
        batch_size: sides in one forward pass; it changes nothing but rounding.
    """
    kept, skipped, sides = [], [], list[Judged]()
    for pair in pairs:
        try:
            sides += [_sequence(spirit, pair, side, direction, recordings) for side in (pair.good, pair.bad)]
            kept.append(pair)
        except (Rejection, SpiritLMError) as problem:
            del sides[2 * len(kept) :]
            skipped.append(Skipped(pair.key, str(problem)))
    sums = log_likelihoods(spirit, sides, batch_size).reshape(-1, 2)
    tokens = np.array([len(side.answer) for side in sides], np.int64).reshape(-1, 2)
    return Scores(tuple(kept), sums, tokens, tuple(skipped))


def log_likelihoods(spirit: SpiritLM, asked: Sequence[Judged], batch_size: int = 8) -> np.ndarray:
    """Of each answer given its prompt, in nats, summed over its tokens: float64[len(asked)]."""
    from spiritlm_core.finetune.likelihood import answer_nats

    distinct = list(dict.fromkeys(asked))  # equal ones are equally likely to the last bit
    pairs = [(one.prompt, one.answer) for one in distinct]
    nats = answer_nats(spirit.model, spirit.vocabulary, pairs, batch_size)
    known = dict(zip(distinct, nats.tolist(), strict=True))
    return np.array([-known[one] for one in asked], np.float64)


def judged(spirit: SpiritLM, parts: Sequence[tuple[Kind, str]], kind: Kind, answer: str) -> Judged:
    """What is judged of an answer behind `parts`: its tokens, but for the marker in front of it.

    Text behind text is tokenized together with it, separated by a space, and judged from the first token that differs
    from those of the parts alone.

    Args:
        spirit: the model.
        parts: texts and speech tokens.
        kind: the modality of the answer.
        answer: text, or speech tokens.

    Raises:
        Rejection: longer than the context, or no tokens to judge.
        SpiritLMError: a speech token is not of this model.
    """
    given = spirit.layout.prompt(joined(parts), kind)
    whole = spirit.layout.prompt(joined([*parts, (kind, answer)]), "any")
    return _checked(whole, _common(whole, given), int(spirit.model.config.max_position_embeddings))


def _sequence(spirit: SpiritLM, pair: Pair, side: Side, direction: Direction, recordings: Recordings) -> Judged:
    layout = spirit.layout
    parts: list[tuple[Kind, str]] = []
    if pair.prefix is not None:
        parts.append((direction.prefix, content_of(layout, pair.prefix, direction.prefix, recordings)))
    elif direction.crosses:
        raise Rejection("nothing stands in front of the sides")
    content = content_of(layout, side, direction.sides, recordings)
    return judged(spirit, parts, direction.sides, content)


def _checked(ids: Sequence[int], given: int, context: int) -> Judged:
    if len(ids) > context:
        raise Rejection(f"{len(ids)} tokens, but the context of the model holds {context}")
    if given == len(ids):
        raise Rejection("a side has no tokens")
    return Judged(tuple(ids[:given]), tuple(ids[given:]))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def content_of(layout: PromptFormat, side: Side, kind: Kind, recordings: Recordings) -> str:
    """Text, or the speech tokens that the model has. Raises Rejection if there is no such form."""
    if not side.has(kind):
        raise Rejection(f"there is no {'text' if kind == 'text' else 'recording'} of it")
    if kind == "text":
        return " ".join(str(side.text).split())
    tokens = "".join(side.tokens.split()) if side.tokens is not None else recordings.tokens(_path(side))
    return known_streams(tokens, layout.vocabulary)


def _path(side: Side) -> Path:
    assert side.audio is not None  # noqa: S101 - what `has` has just said
    return side.audio
