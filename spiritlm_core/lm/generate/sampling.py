"""Choosing the next token of each row, with random numbers of its own for each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spiritlm_core.errors import SpiritLMError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token; else logits are divided by it.
        top_p: nucleus sampling (arXiv 1904.09751): the smallest set of likely tokens with this probability.
        seed: seed of the draws; each prompt has its own stream, whatever shares its batch.
        top_k: only this many of the likely tokens; 0 for all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0 and self.seed >= 0):
            raise SpiritLMError(f"sampling needs temperature ≥ 0, 0 < top_p ≤ 1, top_k ≥ 0 and seed ≥ 0, not {self}")


GREEDY = Sampling()
_COLDEST = 1e-30
"""Lower temperatures leave the most likely token alone, and float32 could not divide by them."""


def draws(prompts: Sequence[Sequence[int]], most: int, seed: int) -> np.ndarray:
    """Uniform random numbers in [0, 1) for each prompt and step, float64[prompts, most].

    A row depends on the seed, on the prompt, and on how many equal prompts precede it: not on what else is asked,
    and the first n do not depend on `most`.
    """
    seen: Counter[bytes] = Counter()
    rows = np.empty((len(prompts), most))
    for row, prompt in zip(rows, prompts, strict=True):
        key = hashlib.sha256(np.asarray(prompt, np.int64).tobytes()).digest()
        words = np.frombuffer(key, np.uint32).tolist()
        row[:] = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, seen[key], *words]))).random(most)
        seen[key] += 1
    return rows


def choose(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> torch.Tensor:
    """The next token of each row, int64[batch].

    Args:
        logits: float32[batch, rows], minus infinity where nothing may be sampled.
        sampling: how.
        uniform: float64[batch] in [0, 1): the position in the cumulated probabilities that is drawn.
    """
    if sampling.temperature < _COLDEST:
        return logits.argmax(dim=-1)
    scaled, order = logits / sampling.temperature, None
    if 0 < sampling.top_k < logits.shape[-1] or sampling.top_p < 1:
        scaled, order = scaled.sort(dim=-1, descending=True, stable=True)
    if order is not None and sampling.top_k:
        scaled[:, sampling.top_k :] = -torch.inf
    cumulated = torch.softmax(scaled, dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total = cumulated[:, -1:]
    if sampling.top_p < 1:  # the tokens in front of which less than top_p has been cumulated; the first always is
        reached = (cumulated < sampling.top_p * total).sum(dim=-1, keepdim=True)
        total = cumulated.gather(-1, reached.clamp(max=logits.shape[-1] - 1))
    wanted = uniform[:, None].clamp(max=1 - 2**-40) * total  # rounding must not reach past the last token
    place = torch.searchsorted(cumulated, wanted, right=True)
    return (place if order is None else order.gather(-1, place)).squeeze(-1)
