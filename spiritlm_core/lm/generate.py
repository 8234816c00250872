"""Continuing prompts, with a key-value cache, in the modality asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.model import CausalLM
from spiritlm_core.lm.prompts import Modality
from spiritlm_core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token; else logits are divided by it.
        top_p: nucleus sampling (arXiv 1904.09751): the smallest set of likely tokens with this probability.
        seed: seed of the draws; each prompt has its own stream, whatever shares its batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@torch.inference_mode()
def generate(
    model: CausalLM,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    *,
    modality: Modality = "any",
    max_new_tokens: int = 200,
    sampling: Sampling = Sampling(),
    stop_ids: Sequence[int] = (),
    batch_size: int = 16,
) -> list[list[int]]:
    """Continue each prompt.

    Args:
        model: causal LM, in evaluation mode or not; it is put into it.
        vocabulary: tells which ids belong to which modality.
        prompts: token ids, at least one each.
        modality: ``text`` samples text tokens alone, ``speech`` speech tokens alone, ``any`` both and the markers;
            EOS always, and rows that pad the embedding never.
        max_new_tokens: most tokens to add; fewer where the context of the model ends.
        sampling: greedy or random choice.
        stop_ids: further ids that end a continuation, such as ``[Speech]`` after text; allowed in any modality.
        batch_size: prompts continued at once.

    Returns:
        The new ids of each prompt, without the id that ended it.

    Raises:
        SpiritLMError: a prompt is empty, holds ids outside the vocabulary, or is longer than the context.
    """
    model.eval()
    _check_prompts(model, vocabulary, prompts)
    ends = {*stop_ids, *(() if vocabulary.eos is None else (vocabulary.eos,))}
    allowed = allowed_ids(vocabulary, modality, _rows(model), tuple(ends))
    new: list[list[int]] = []
    for first in range(0, len(prompts), batch_size):
        draws = [_generator(sampling.seed, first + i) for i in range(len(prompts[first : first + batch_size]))]
        batch = _Batch(model, prompts[first : first + batch_size], draws)
        new += batch.run(allowed, ends, max_new_tokens, sampling)
    return new


def allowed_ids(vocabulary: Vocabulary, modality: Modality, rows: int, ends: Sequence[int] = ()) -> torch.Tensor:
    """bool[rows]: what may be sampled. Rows from ``vocabulary.size`` on are padding and never allowed, BOS neither."""
    ids = np.arange(rows)
    text, speech = ids < vocabulary.text_size, vocabulary.is_speech(ids)
    known = ids < vocabulary.size
    allowed = {"text": text, "speech": speech, "any": known}[modality].copy()
    if vocabulary.bos is not None:
        allowed[vocabulary.bos] = False
    allowed[list(ends)] = True
    return torch.from_numpy(allowed & known)


class _Batch:
    """Prompts continued together: padded on the left, positions and mask such that padding changes nothing."""

    def __init__(self, model: CausalLM, prompts: Sequence[Sequence[int]], draws: Sequence[torch.Generator]) -> None:
        self.model, self.draws = model, draws
        self.room = [_context(model) - len(prompt) for prompt in prompts]
        self.device = next(model.parameters()).device
        longest = max(len(prompt) for prompt in prompts)
        self.ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=self.device)
        self.mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)

    def run(self, allowed: torch.Tensor, ends: set[int], most: int, sampling: Sampling) -> list[list[int]]:
        new: list[list[int]] = [[] for _ in self.draws]
        going = [min(most, room) > 0 for room in self.room]
        banned = ~allowed.to(self.device)
        feed, mask, cache = self.ids, self.mask, None
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        while any(going):
            output = self.model(
                input_ids=feed, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float().masked_fill(banned, -torch.inf)
            chosen = [_choose(row, sampling, draw) for row, draw in zip(logits, self.draws, strict=True)]
            for i, token in enumerate(chosen):
                going[i] = going[i] and token not in ends
                if going[i]:
                    new[i].append(token)
                    going[i] = len(new[i]) < min(most, self.room[i])
            feed = torch.tensor(chosen, device=self.device)[:, None]
            mask = torch.cat([mask, torch.ones_like(feed)], dim=1)
            positions = positions[:, -1:] + 1
        return new


def _choose(logits: torch.Tensor, sampling: Sampling, draw: torch.Generator) -> int:
    """One token from float32[rows] logits."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.cpu() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        probabilities[order[before >= sampling.top_p]] = 0  # the most likely token always stays
    return int(torch.multinomial(probabilities, 1, generator=draw))


def _generator(seed: int, index: int) -> torch.Generator:
    """A stream of its own for each prompt; SeedSequence keeps neighbours unrelated."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _rows(model: CausalLM) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _context(model: CausalLM) -> int:
    return int(model.config.max_position_embeddings)


def _check_prompts(model: CausalLM, vocabulary: Vocabulary, prompts: Sequence[Sequence[int]]) -> None:
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise SpiritLMError(f"prompt {index} is empty: it needs at least one token")
        if len(prompt) >= _context(model):
            raise SpiritLMError(f"prompt {index} has {len(prompt)} tokens, the model's context is {_context(model)}")
        if min(prompt) < 0 or max(prompt) >= vocabulary.size:
            raise SpiritLMError(f"prompt {index} has ids outside the vocabulary of {vocabulary.size} tokens")
