"""Continuing prompts, with a key-value cache, in the modality asked for."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict, Unpack

import torch

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.prompts import Finish, Modality, parts_of
from spiritlm_core.lm.generate.sampling import GREEDY, ModalityLogitsProcessor, Sampling, banned_ids, choose, draws
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.tokens.vocabulary import Vocabulary

__all__ = ["Continuation", "Finish", "Options", "Sampling", "Step", "continuations", "generate", "stream"]


class Step(NamedTuple):
    """One new token of one prompt; `token` is None, and `finish` says why, when there are no more."""

    prompt: int
    token: int | None
    finish: Finish | None


@dataclass
class Continuation:
    """The new ids of a prompt, without the one that ended it, and what that was: EOS, a stop id, or the length."""

    ids: list[int] = field(default_factory=list)
    finish: Finish = "length"

    def take(self, step: Step) -> None:
        """What a step of its prompt says."""
        if step.token is not None:
            self.ids.append(step.token)
        if step.finish is not None:
            self.finish = step.finish


class Options(TypedDict, total=False):
    """The options of :func:`stream`."""

    modality: Modality
    max_new_tokens: int
    sampling: Sampling
    stop_ids: Sequence[int]
    force: bool
    lacking: Sequence[int]
    transcribes: bool
    batch_size: int


def generate(
    model: CausalLM, vocabulary: Vocabulary, prompts: Sequence[Sequence[int]], **options: Unpack[Options]
) -> list[list[int]]:
    """The new ids of each prompt, without the id that ended it; options and errors as for :func:`stream`."""
    return [continuation.ids for continuation in continuations(model, vocabulary, prompts, **options)]


def continuations(
    model: CausalLM, vocabulary: Vocabulary, prompts: Sequence[Sequence[int]], **options: Unpack[Options]
) -> list[Continuation]:
    """Continue each prompt; options and errors as for :func:`stream`."""
    found = [Continuation() for _ in prompts]
    for step in stream(model, vocabulary, prompts, **options):
        found[step.prompt].take(step)
    return found


def stream(
    model: CausalLM,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    *,
    modality: Modality = "any",
    max_new_tokens: int = 200,
    sampling: Sampling = GREEDY,
    stop_ids: Sequence[int] = (),
    force: bool = True,
    lacking: Sequence[int] = (),
    transcribes: bool = False,
    batch_size: int = 16,
) -> Iterator[Step]:
    """Continue each prompt, token by token.

    Prompts of similar length share a batch, padded on the left; a prompt that is finished leaves it. The result for a
    prompt does not depend on the others, but for the rounding of matrix products of different sizes.

    Args:
        model: causal LM, in evaluation mode or not; it is put into it.
        vocabulary: tells which ids belong to which modality.
        prompts: token ids, at least one each.
        modality: ``text`` samples text tokens alone, ``speech`` speech tokens alone, ``any`` both and the markers;
            EOS always, BOS and rows that pad the embedding never.
        max_new_tokens: most tokens to add; fewer where the context of the model ends.
        sampling: greedy or random choice.
        stop_ids: further ids that end a continuation, such as ``[Speech]`` after text; allowed in any modality.
        force: False lets the model leave the modality.
        lacking: ids that are never sampled: of units that the speech tokenizer does not have.
        transcribes: the answer is what the last speech of the prompt says. It then has no more tokens than that speech:
            nobody says more in the time, so that one that repeats a word for ever is cut short.
        batch_size: prompts continued at once.

    Yields the tokens in the order in which they are sampled, prompts side by side, and one end for each prompt. Raises
    SpiritLMError: a prompt is empty, holds ids outside the vocabulary, or is longer than the context.
    """
    if batch_size < 1 or max_new_tokens < 0:
        raise SpiritLMError(f"batch_size {batch_size} must be ≥ 1, and max_new_tokens {max_new_tokens} ≥ 0")
    _check_prompts(model, vocabulary, prompts, stop_ids)
    model.eval()
    rows = int(model.get_output_embeddings().weight.shape[0])
    banned = banned_ids(vocabulary, modality, rows, stop_ids, force=force, lacking=lacking)
    constraint = ModalityLogitsProcessor(banned)
    ends: dict[int, Finish] = dict.fromkeys(stop_ids, "stop")
    if vocabulary.eos is not None:
        ends[vocabulary.eos] = "eos"
    most = [_at_most(max_new_tokens, p, vocabulary) if transcribes else max_new_tokens for p in prompts]
    uniform = torch.from_numpy(draws(prompts, max_new_tokens if sampling.temperature else 0, sampling.seed))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), batch_size):
        members = order[first : first + batch_size]
        batch = _Batch(model, [prompts[i] for i in members], members, [most[i] for i in members])
        yield from batch.run(constraint, ends, sampling, uniform)


class _Batch:
    """Prompts continued together: padded on the left, positions and mask such that padding changes nothing."""

    def __init__(
        self, model: CausalLM, prompts: Sequence[Sequence[int]], names: Sequence[int], most: Sequence[int]
    ) -> None:
        self.model, self.names = model, list(names)
        self.room = [min(room, _context(model) - len(p)) for room, p in zip(most, prompts, strict=True)]
        device, longest = next(model.parameters()).device, max(len(prompt) for prompt in prompts)
        self.feed = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
        self.mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        self.positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        self.cache = None
        # Nobody needs the logits of the prompt, and most models can leave them out.
        leaves_out = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.options = {"logits_to_keep": 1} if leaves_out else {}

    def run(
        self,
        constraint: ModalityLogitsProcessor,
        ends: dict[int, Finish],
        sampling: Sampling,
        uniform: torch.Tensor,
    ) -> Iterator[Step]:
        """Steps until every prompt is finished; `uniform` is float64[all prompts, steps]."""
        step = 0
        yield from self._leave([("length" if room <= 0 else None) for room in self.room])
        while self.names:
            draw = uniform[self.names, step] if sampling.temperature else torch.empty(0)
            tokens = choose(constraint(self.feed, self._logits()), sampling, draw.to(self.feed.device))
            step += 1
            finished: list[Finish | None] = []
            for name, room, token in zip(self.names, self.room, tokens.tolist(), strict=True):
                if token not in ends:
                    yield Step(name, token, None)
                finished.append(ends.get(token) or ("length" if step >= room else None))
            self._append(tokens)
            yield from self._leave(finished)

    @torch.inference_mode()
    def _logits(self) -> torch.Tensor:
        """float32[batch, rows] of the next token; the cache then holds all that was fed."""
        output = self.model(
            input_ids=self.feed,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.options,
        )
        self.cache = output.past_key_values
        return output.logits[:, -1].float()

    def _append(self, tokens: torch.Tensor) -> None:
        self.feed = tokens[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.feed)], dim=1)
        self.positions = self.positions[:, -1:] + 1

    def _leave(self, finished: Sequence[Finish | None]) -> Iterator[Step]:
        """Say which prompts are finished, and go on without them."""
        kept = [i for i, reason in enumerate(finished) if reason is None]
        for name, reason in zip(self.names, finished, strict=True):
            if reason is not None:
                yield Step(name, None, reason)
        if len(kept) == len(self.names):
            return
        self.names, self.room = [self.names[i] for i in kept], [self.room[i] for i in kept]
        rows = torch.tensor(kept, dtype=torch.long, device=self.feed.device)
        self.feed, self.mask, self.positions = self.feed[rows], self.mask[rows], self.positions[rows]
        if self.cache is not None and kept:
            with torch.inference_mode():
                self.cache.batch_select_indices(rows)


def _context(model: CausalLM) -> int:
    return int(model.config.max_position_embeddings)


def _at_most(most: int, prompt: Sequence[int], vocabulary: Vocabulary) -> int:
    """`most` or, where there are fewer, the tokens of the last stretch of speech in a prompt."""
    parts = parts_of(prompt, vocabulary)
    return min(most, next((len(ids) for kind, ids in reversed(parts) if kind == "speech"), most))


def _check_prompts(
    model: CausalLM, vocabulary: Vocabulary, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int]
) -> None:
    if any(not 0 <= i < vocabulary.size for i in stop_ids):
        raise SpiritLMError(f"stop_ids {list(stop_ids)} are not all in the vocabulary of {vocabulary.size} tokens")
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise SpiritLMError(f"prompt {index} is empty: it needs at least one token")
        if len(prompt) >= _context(model):
            raise SpiritLMError(
                f"prompt {index} has {len(prompt)} tokens, the model's context is {_context(model)}: shorten it"
            )
        if min(prompt) < 0 or max(prompt) >= vocabulary.size:
            raise SpiritLMError(f"prompt {index} has ids outside the vocabulary of {vocabulary.size} tokens")
