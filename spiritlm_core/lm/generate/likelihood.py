"""How likely a model finds tokens, and answers to prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.errors import Rejection
from spiritlm_core.lm.generate.prompts import Kind, joined

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM

_LOGITS_AT_ONCE = 1 << 25  # 128 MiB of float32


@dataclass(frozen=True)
class Judged:
    """What a model is given, and what it is judged on."""

    prompt: tuple[int, ...]  # ids up to the marker of the answer's modality; at least one
    answer: tuple[int, ...]  # ids of the answer; at least one


@dataclass(frozen=True)
class Predicted:
    """What a model makes of a sequence of N tokens."""

    nats: np.ndarray  # float64[N - 1], negative log-likelihood of every token but the first
    likeliest: np.ndarray  # bool[N - 1], whether the model finds no token more likely


def predict(model: Any, sequences: Sequence[Sequence[int] | np.ndarray]) -> list[Predicted]:
    """Score sequences of at least one id, none longer than the model's context.

    Those of similar length share a batch; padding stands behind the tokens of a causal model, so that the numbers do
    not depend on the batch but for rounding.
    """
    predicted: dict[int, Predicted] = {}
    for batch in _batches([len(ids) for ids in sequences], int(model.get_output_embeddings().weight.shape[0])):
        predicted |= zip(batch, _predict(model, [sequences[i] for i in batch]), strict=True)
    return [predicted[i] for i in range(len(sequences))]


def _batches(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Longest first, so that the first sequence of a batch bounds its memory."""
    order, start = sorted(range(len(lengths)), key=lambda i: -lengths[i]), 0
    while start < len(order):
        size = max(1, _LOGITS_AT_ONCE // (rows * lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _predict(model: Any, sequences: Sequence[Sequence[int] | np.ndarray]) -> Iterator[Predicted]:
    """Of a batch, the longest sequence first."""
    import torch
    from torch.nn.functional import cross_entropy

    device = next(model.parameters()).device
    ids = torch.zeros(len(sequences), len(sequences[0]), dtype=torch.long)
    seen = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.as_tensor(np.asarray(sequence, np.int64))
        seen[row, : len(sequence)] = 1
    with torch.inference_mode():
        logits = model(input_ids=ids.to(device), attention_mask=seen.to(device), use_cache=False).logits[:, :-1].float()
        targets = ids[:, 1:].to(device)
        nats = cross_entropy(logits.transpose(1, 2), targets, reduction="none").double().cpu().numpy()
        likeliest = (logits.argmax(-1) == targets).cpu().numpy()
    for sequence, costs, best in zip(sequences, nats, likeliest, strict=True):
        yield Predicted(costs[: len(sequence) - 1], best[: len(sequence) - 1])


def log_likelihoods(spirit: SpiritLM, asked: Sequence[Judged]) -> np.ndarray:
    """Log-likelihood of each answer given its prompt, in nats, summed over its tokens: float64[len(asked)]."""
    distinct = list(dict.fromkeys(asked))  # equal ones are equally likely to the last bit
    predicted = predict(spirit.model, [(*one.prompt, *one.answer) for one in distinct])
    sums = {one: -found.nats[len(one.prompt) - 1 :].sum() for one, found in zip(distinct, predicted, strict=True)}
    return np.array([sums[one] for one in asked], np.float64)


def judged(spirit: SpiritLM, parts: Iterable[tuple[Kind, str]], kind: Kind, answer: str) -> Judged:
    """What is judged of an answer of a `kind` behind `parts`: its tokens, but for the marker in front of it.

    Text behind text is tokenized together with it, separated by a space, and judged from the first token that differs
    from those of the parts alone.

    Raises Rejection: longer than the context, or no tokens to judge; SpiritLMError: a speech token is not of this
    model.
    """
    before = tuple(parts)
    given = spirit.layout.prompt(joined(before), kind)
    whole = spirit.layout.prompt(joined([*before, (kind, answer)]), "any")
    if len(whole) > spirit.context:
        raise Rejection(f"{len(whole)} tokens, but the context of the model holds {spirit.context}")
    same = common_start(given, whole)
    if same == len(whole):
        raise Rejection("a side has no tokens")
    return Judged(tuple(whole[:same]), tuple(whole[same:]))


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
