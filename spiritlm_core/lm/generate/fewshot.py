"""How likely a model finds tokens and answers, and few-shot questions: solved examples in front of an answer.

The answer is written, or chosen among labels; the prompts are those of Spirit LM (arXiv 2402.05755, section 4.2). The
held-out evaluation, the suite and ``spiritlm fewshot`` all draw, lay out and ask this way.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, TypeVar

import numpy as np

from spiritlm_core.errors import Rejection
from spiritlm_core.lm.generate.prompts import Example, Kind, Modality, Parts, joined, turns
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.tokens.counter import key_of

_T = TypeVar("_T")
_LOGITS_AT_ONCE = 1 << 25  # 128 MiB of float32
_BRANCHES = 64  # tokens of answers behind a short prompt that share a pass


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
    """Log-likelihood of each answer given its prompt, in nats, summed over its tokens: float64[len(asked)].

    Short answers to one prompt, such as labels, are branches behind it and share a pass.
    """
    sums: dict[Judged, float] = {}
    trees = list(_trees(asked))
    lengths = [len(tree[0].prompt) + sum(len(one.answer) for one in tree) for tree in trees]
    for batch in _batches(lengths, int(spirit.model.get_output_embeddings().weight.shape[0])):
        sums |= _branched(spirit.model, [trees[i] for i in batch])
    return np.array([sums[one] for one in asked], np.float64)


def _trees(asked: Iterable[Judged]) -> Iterator[list[Judged]]:
    """Distinct answers to the same prompt, together no longer than the prompt, or 64 tokens, or one alone."""
    by_prompt: dict[tuple[int, ...], list[Judged]] = defaultdict(list)
    for one in dict.fromkeys(asked):  # equal ones are equally likely to the last bit
        by_prompt[one.prompt].append(one)
    for prompt, answers in by_prompt.items():
        tree: list[Judged] = []
        for one in answers:
            if tree and sum(len(other.answer) for other in [*tree, one]) > max(_BRANCHES, len(prompt)):
                yield tree
                tree = []
            tree.append(one)
        yield tree


def _branched(model: Any, trees: Sequence[list[Judged]]) -> Iterator[tuple[Judged, float]]:
    """Each answer and its log-likelihood. A token sees the prompt, and what is in front of it in its own answer."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    laid = zip(*map(_laid_side_by_side, trees), strict=True)
    ids, branch, place = (pad_sequence([*map(torch.tensor, part)], batch_first=True) for part in laid)
    sees = ((branch[:, None] == 0) | (branch[:, None] == branch[:, :, None])).tril()
    weight = next(model.parameters())
    mask = torch.zeros(sees.shape, dtype=weight.dtype).masked_fill(~sees, torch.finfo(weight.dtype).min)[:, None]
    given = {"input_ids": ids, "position_ids": place, "attention_mask": mask}
    with torch.inference_mode():
        given = {name: part.to(weight.device) for name, part in given.items()}
        known = model(**given, use_cache=False).logits.float().log_softmax(-1)
    start = torch.tensor([[len(tree[0].prompt)] for tree in trees])
    before = (torch.where(place == start, start, torch.arange(ids.shape[1])) - 1).clamp(min=0)
    told = known[torch.arange(len(trees))[:, None], before, ids].double().cpu()
    for tree, own, tokens in zip(trees, branch, told, strict=True):
        yield from ((one, float(tokens[own == number].sum())) for number, one in enumerate(tree, 1))


def _laid_side_by_side(tree: Sequence[Judged]) -> tuple[list[int], list[int], list[int]]:
    """Ids of a prompt and its answers; the number of the answer that each is in, 0: the prompt; and its position."""
    prompt, answers = tree[0].prompt, [one.answer for one in tree]
    ids = [*prompt, *chain.from_iterable(answers)]
    branch = [0] * len(prompt) + [number for number, answer in enumerate(answers, 1) for _ in answer]
    places = [*range(len(prompt)), *(len(prompt) + i for answer in answers for i in range(len(answer)))]
    return ids, branch, places


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
    transcribes: bool = False  # is an answer what the question says? It then is no longer than the question
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
        most, kind = self.max_new_tokens, self.kind or "any"
        written = write(self.spirit, prompts, kind, most, stop, self.batch_size, transcribes=self.transcribes)
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
    *,
    transcribes: bool = False,
) -> list[str]:
    """Greedy answers of at most `most` tokens, as text or as speech tokens; `stop` are tokens that end one, too.

    `transcribes`: an answer is what its question says, see :func:`spiritlm_core.lm.generate.decode.stream`.
    """
    from spiritlm_core.lm.generate.decode import generate

    new = generate(
        spirit.model,
        spirit.vocabulary,
        prompts,
        modality=modality,
        max_new_tokens=most,
        stop_ids=[spirit.layout.added[token] for token in stop],
        lacking=[] if modality == "text" else spirit.lacking,
        transcribes=transcribes,
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
