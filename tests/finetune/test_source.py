"""The stream of packed examples: whole, each as often as the others, the same for any number of workers."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.finetune.config import ContextConfig
from spiritlm_core.finetune.source import ExampleSource, read_examples
from spiritlm_core.finetune.stage import TASK_EXAMPLES
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.pack import Packed
from spiritlm_core.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(100, 60, 8, 4, eos=2)
TOKENS = ContextConfig(context_length=32, window=3)


def made(lengths: list[tuple[int, int]], split: str = "train") -> TableView:
    rows: list[dict[str, Any]] = [
        {"example_id": f"{split}-{n}", "split": split, "prompt_ids": [3] * prompt, "answer_ids": [n % 90 + 4] * answer,
         "answer_kind": "text"}
        for n, (prompt, answer) in enumerate(lengths)
    ]  # fmt: skip
    rows.append({"example_id": "bad", "split": split, "reject_stage": "task_examples", "reject_reason": "x"})
    half = len(rows) // 2
    return TableView.of(*(table_of(part, TASK_EXAMPLES) for part in (rows[half:], rows[:half]) if part))


def stream(view: TableView, count: int, rank: int = 0, world: int = 1, state: Any = None) -> list[tuple[Packed, Any]]:
    source = ExampleSource(view, TOKENS)
    return list(islice(source.batches(VOCABULARY, seed=5, start_state=state, rank=rank, world_size=world), count))


def shown(packed: Packed) -> tuple[Any, ...]:
    assert packed.predicted is not None
    return packed.keys, packed.input_ids.tolist(), packed.document_ids.tolist(), packed.predicted.tolist()


LENGTHS = st.lists(st.tuples(st.integers(1, 16), st.integers(1, 16)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(LENGTHS)
def test_examples_are_whole_and_answers_alone_count(lengths: list[tuple[int, int]]) -> None:
    view = made(lengths)
    by_id = {example.key: example for example in read_examples(view, "train")}
    assert len(by_id) == len(lengths)
    for packed, _ in stream(view, 8):
        for number, key in enumerate(packed.keys):
            mine = packed.document_ids == number
            example = by_id[key]
            prompt, answer = lengths[int(key.removeprefix("train-"))]
            assert packed.input_ids[mine].tolist() == example.ids.tolist() == [3] * prompt + [example.ids[-1]] * answer
            assert packed.predicted[mine].tolist() == [False] * prompt + [True] * answer
        assert not packed.predicted[packed.document_ids < 0].any()


@settings(deadline=None, max_examples=12)
@given(LENGTHS, st.integers(1, 5), st.integers(0, 5))
def test_the_order_is_the_same_for_any_number_of_workers(
    lengths: list[tuple[int, int]], workers: int, cut: int
) -> None:
    view = made(lengths)
    alone = [shown(packed) for packed, _ in stream(view, 6 * workers + cut + 5)]
    shares = [stream(view, 6, rank, workers) for rank in range(workers)]
    together = [shown(shares[n % workers][n // workers][0]) for n in range(6 * workers)]
    assert together == alone[: 6 * workers]
    behind = (cut + 1) * workers
    for share in (shares[0], shares[-1]):  # all ranks mean the same place
        resumed = [shown(packed) for packed, _ in stream(view, 4, state=share[cut][1])]
        assert resumed == alone[behind : behind + 4]


def test_every_example_comes_once_an_epoch_and_in_another_order() -> None:
    view = made([(3, 5)] * 20)
    counts: Counter[str] = Counter()
    orders = []
    for packed, state in stream(view, 15):  # four to a sequence: three epochs of five
        counts.update(packed.keys)
        orders.append((state["epoch"], packed.keys))
    assert set(counts.values()) == {3}
    assert len({keys for _, keys in orders}) == 15


def test_held_out_examples_are_never_trained_on(published: Path, classification: TableView) -> None:
    source = ExampleSource(classification, ContextConfig(context_length=64, window=4))
    held_out = source.held_out(VOCABULARY, count=5, seed=0)
    assert len(held_out) == 5
    keys = {key for packed in held_out for key in packed.keys}
    again = source.held_out(VOCABULARY, count=5, seed=0)
    assert [shown(packed) for packed in again] == [shown(packed) for packed in held_out]
    stream_ = source.batches(VOCABULARY, seed=0, start_state=None, rank=0, world_size=1)
    seen = {key for packed, _ in islice(stream_, 200) for key in packed.keys}
    assert keys.isdisjoint(seen)
    assert len(seen) == len(read_examples(classification, "train"))


def test_the_fingerprint_names_content_and_settings() -> None:
    view = made([(3, 5)] * 4)
    names = {ExampleSource(view, TOKENS).fingerprint(),
             ExampleSource(view, TOKENS.model_copy(update={"window": 2})).fingerprint(),
             ExampleSource(made([(3, 6)] * 4), TOKENS).fingerprint()}  # fmt: skip
    assert len(names) == 3


def test_what_is_longer_than_a_sequence_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        stream(made([(30, 30)]), 1)
