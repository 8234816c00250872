"""How likely a model finds given answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spiritlm_core.finetune.source import TaskExample, pack_examples
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.data import Batch
from spiritlm_core.lm.train.objective import Objective
from spiritlm_core.tokens.vocabulary import Vocabulary

Pair = tuple[Sequence[int], Sequence[int]]
"""The ids of a prompt, and of an answer to it."""


@torch.inference_mode()
def answer_nats(model: CausalLM, vocabulary: Vocabulary, pairs: Sequence[Pair], batch_size: int = 8) -> np.ndarray:
    """Negative log-likelihood of each answer given its prompt, in nats, summed over its tokens.

    Args:
        model: a causal LM with sdpa attention.
        vocabulary: its own.
        pairs: prompts of at least one token; any lengths that the context holds.
        batch_size: answers in one forward pass; the result for one does not depend on the others.

    Returns:
        float64[len(pairs)].

    Raises:
        TokenRangeError: an id is not in `vocabulary`.
    """
    objective, device = Objective(model, "sdpa").eval(), next(model.parameters()).device
    examples = [TaskExample("", np.array(p, np.int32), np.array(a, np.int32), "text") for p, a in pairs]
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]))
    found = np.zeros(len(examples))
    for first in range(0, len(order), batch_size):
        members = order[first : first + batch_size]
        length = max(2, len(examples[members[-1]]))
        batch = Batch.of([pack_examples([examples[i]], length) for i in members], vocabulary.size)
        nats = objective(batch.to(device))[1].double().cpu().numpy()
        np.add.at(found, np.array(members)[batch.predicting.numpy() // length], nats)
    return found


def most_likely(
    model: CausalLM,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    batch_size: int = 8,
) -> list[int]:
    """The index of the label that each prompt makes most likely; the first of equally likely ones."""
    pairs = [(prompt, label) for prompt in prompts for label in labels]
    nats = answer_nats(model, vocabulary, pairs, batch_size).reshape(len(prompts), len(labels))
    found: list[int] = nats.argmin(axis=1).tolist()
    return found
