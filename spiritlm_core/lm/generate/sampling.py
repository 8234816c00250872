"""What may be sampled for an answer of one modality, and choosing the next token of each row."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.prompts import Modality
from spiritlm_core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0  # 0 takes the most likely token; else logits are divided by it
    top_p: float = 1.0  # nucleus sampling (arXiv 1904.09751): the smallest set of likely tokens with this probability
    seed: int = 0  # seed of the draws; each prompt has its own stream, whatever shares its batch
    top_k: int = 0  # only this many of the likely tokens; 0 for all

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0 and self.seed >= 0):
            raise SpiritLMError(f"sampling needs temperature ≥ 0, 0 < top_p ≤ 1, top_k ≥ 0 and seed ≥ 0, not {self}")


GREEDY = Sampling()
_COLDEST = 1e-30  # lower temperatures leave the most likely token alone, and float32 could not divide by them


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
    """The next token of each row, int64[batch], of float32[batch, rows], minus infinity where nothing may be sampled.

    `uniform`, float64[batch] in [0, 1), is the position in the cumulated probabilities that is drawn.
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


def forbidden_ids(vocabulary: Vocabulary, modality: Modality) -> list[int]:
    """The ids that do not belong to an answer of a modality, ascending, as the released models define them.

    Text forbids the markers and all speech tokens, speech all text tokens and the markers, ``any`` nothing. EOS is
    in the list for speech, but :func:`banned_ids` never bans it, nor does the released code.
    """
    first = {"text": vocabulary.text_size, "speech": 0, "any": vocabulary.size}[modality]
    last = vocabulary.speech_marker + 1 if modality == "speech" else vocabulary.size
    return list(range(first, last))


def banned_ids(
    vocabulary: Vocabulary,
    modality: Modality,
    rows: int,
    ends: Collection[int] = (),
    *,
    force: bool = True,
    lacking: Collection[int] = (),
) -> torch.Tensor:
    """What is never sampled: bool[rows], for the rows of the output embedding.

    BOS and the rows from ``vocabulary.size`` on, which are padding, are always banned. The ids in `ends` and EOS end
    the answer, and are allowed in any modality. Without `force` nothing is banned for the sake of the modality. The ids
    `lacking` are those of units that nobody could make heard.
    """
    banned = torch.zeros(rows, dtype=torch.bool)
    banned[[*lacking]] = True
    if force:
        banned[forbidden_ids(vocabulary, modality)] = True
    if vocabulary.bos is not None:
        banned[vocabulary.bos] = True
    banned[[*ends, *([] if vocabulary.eos is None else [vocabulary.eos])]] = False
    banned[vocabulary.size :] = True
    return banned


class ModalityLogitsProcessor(LogitsProcessor):
    """Keeps generation in one modality; for ``model.generate(logits_processor=[…])`` as well as for our own loop."""

    def __init__(self, banned: torch.Tensor) -> None:
        """`banned` is bool[rows], see :func:`banned_ids`."""
        self.banned = banned

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        """Logits float[batch, rows] with those of banned ids at minus infinity; what went before does not matter."""
        if self.banned.device != scores.device:
            self.banned = self.banned.to(scores.device)
        return scores.masked_fill(self.banned, -torch.inf)
