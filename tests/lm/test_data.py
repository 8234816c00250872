from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.model.network import build_model
from spiritlm_core.lm.train.data import Batch, Prefetch, Step, TokenRangeError, steps
from spiritlm_core.lm.train.objective import Objective
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.pack import Packed, packed
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.support.small_model import TINY

VOCABULARY = Vocabulary(100, hubert=20, pitch=4, style=3, bos=1, eos=2)
LENGTH = 48


def pack_of(lengths: list[int], seed: int = 0) -> Packed:
    rng = np.random.default_rng([seed, *lengths])
    ids = [rng.integers(0, VOCABULARY.size, length).astype(np.int32) for length in lengths]
    return packed([Document(i, STREAMS[k % 3], f"r{k}") for k, i in enumerate(ids)], LENGTH)


lengths = st.lists(st.integers(1, 20), min_size=1, max_size=8).filter(lambda values: sum(values) <= LENGTH)


@settings(max_examples=25, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=3), st.sampled_from(["documents", "sdpa", "flash_attention_2"]))
def test_packed_losses_equal_those_of_documents_alone(rows: list[list[int]], layout: str) -> None:
    """All ways of keeping attention within a document, against no packing at all."""
    packs = [pack_of(row) for row in rows]
    objective = Objective(build_model(CONFIG, VOCABULARY, context_length=LENGTH), layout).eval()
    with torch.inference_mode():
        _, nats = objective(Batch.of(packs, VOCABULARY.size))
        torch.testing.assert_close(nats, torch.cat([alone(ids) for ids in documents_of(packs)]), rtol=1e-5, atol=1e-5)


def documents_of(packs: list[Packed]) -> list[torch.Tensor]:
    return [
        torch.from_numpy(pack.input_ids[pack.document_ids == number]).long()
        for pack in packs
        for number in range(len(pack.streams))
    ]


def alone(ids: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihoods of a document's tokens, by transformers' own forward pass."""
    logits = MODEL(input_ids=ids[None], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[0, :-1], ids[1:], reduction="none")


@settings(max_examples=10, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=3))
def test_gradients_of_packed_sequences_equal_those_of_documents_alone(rows: list[list[int]]) -> None:
    packs = [pack_of(row) for row in rows]
    model = build_model(CONFIG, VOCABULARY, context_length=LENGTH)
    loss, nats = Objective(model)(Batch.of(packs, VOCABULARY.size), 0.25)
    loss.backward()
    MODEL.zero_grad()
    expected = 0.25 * sum(alone(ids).sum() for ids in documents_of(packs))
    torch.testing.assert_close(loss.detach(), torch.as_tensor(expected).detach())
    torch.testing.assert_close(loss.detach(), 0.25 * nats.sum())
    if nats.numel():
        expected.backward()  # type: ignore[union-attr]
        for (name, have), want in zip(model.named_parameters(), MODEL.parameters(), strict=True):
            torch.testing.assert_close(have.grad, want.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("weights", [{"text": 0.5, "speech": 3.0}, {"speech": 0.0}, {"interleaved": 2.0}])
def test_the_gradient_counts_each_stream_by_its_weight(weights: dict[str, float]) -> None:
    """Against documents alone; streams come by turns, and one of the sequences has no interleaved one."""
    packs = [pack_of([9, 12, 7, 8]), pack_of([5, 14])]
    model = build_model(CONFIG, VOCABULARY, context_length=LENGTH)
    objective = Objective(model, weights=weights)
    batch = Batch.of(packs, VOCABULARY.size)
    loss, nats = objective(batch, 0.25)
    loss.backward()
    MODEL.zero_grad()
    of_document = [weights.get(stream, 1.0) for pack in packs for stream in pack.streams]
    documents = [alone(ids) for ids in documents_of(packs)]
    expected = 0.25 * sum(weight * costs.sum() for weight, costs in zip(of_document, documents, strict=True))
    expected.backward()  # type: ignore[union-attr]
    torch.testing.assert_close(loss.detach(), torch.as_tensor(expected).detach())
    torch.testing.assert_close(nats, torch.cat(documents).detach(), rtol=1e-5, atol=1e-5)
    for (name, have), want in zip(model.named_parameters(), MODEL.parameters(), strict=True):
        torch.testing.assert_close(have.grad, want.grad, rtol=1e-4, atol=1e-6, msg=name)
    counts = batch.counts()[:-1].tolist()
    total = sum(weight * len(costs) for weight, costs in zip(of_document, documents, strict=True))
    assert objective.weighted(counts) == pytest.approx(total)


CONFIG = LmConfig(architecture=TINY)
MODEL = build_model(CONFIG, VOCABULARY, context_length=LENGTH)


@given(lengths)
@settings(max_examples=50, deadline=None)
def test_targets_stay_in_their_document_and_positions_restart(row: list[int]) -> None:
    pack = pack_of(row)
    batch = Batch.of([pack], VOCABULARY.size)
    where = batch.predicting.numpy()
    assert len(where) == sum(row) - len(row) == int(batch.counts()[:-1].sum())
    assert int(batch.counts()[-1]) == sum(row)
    assert (batch.answers.numpy() == pack.input_ids[where + 1]).all()
    assert (pack.document_ids[where] == pack.document_ids[where + 1]).all()
    positions = batch.position_ids[0].numpy()
    expected = [place for length in [*row, LENGTH - sum(row)] for place in range(length)]
    assert positions.tolist() == expected


def test_out_of_range_ids_are_a_clear_error() -> None:
    pack = pack_of([5])
    for wrong in (-1, VOCABULARY.size):
        ids = pack.input_ids.copy()
        ids[2] = wrong
        with pytest.raises(TokenRangeError, match=f"token id {wrong} .* 0 to {VOCABULARY.size - 1}"):
            Batch.of([Packed(ids, pack.document_ids, pack.streams, pack.keys)], VOCABULARY.size)


@given(lengths, st.data())
@settings(max_examples=30, deadline=None)
def test_the_loss_counts_the_tokens_it_is_told_to(row: list[int], data: st.DataObject) -> None:
    pack = pack_of(row)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH)))
    every, some = (Batch.of([replace(pack, predicted=predicted)], VOCABULARY.size) for predicted in (None, chosen))
    kept = chosen[every.predicting.numpy() + 1]
    assert some.predicting.tolist() == every.predicting[torch.from_numpy(kept)].tolist()
    assert some.tokens == every.tokens


@given(lengths)
@settings(max_examples=30, deadline=None)
def test_pairs_are_those_that_the_mask_shows(row: list[int]) -> None:
    batch = Batch.of([pack_of(row), pack_of([3])], VOCABULARY.size)
    assert batch.documents.pairs == int(batch.mask().sum())


def test_prefetch_keeps_order_hands_over_errors_and_stops() -> None:
    def source() -> object:
        for number in range(7):
            yield pack_of([number + 1]), {"at": number}
        raise ValueError("the disk is gone")

    with Prefetch(steps(source(), VOCABULARY.size, 2, 1), ahead=1) as data:  # type: ignore[arg-type]
        found: list[Step] = [next(data) for _ in range(3)]
        assert [step.state["at"] for step in found] == [1, 3, 5]
        with pytest.raises(ValueError, match="the disk is gone"):
            next(data)
    with Prefetch(iter(found), ahead=1) as data:
        assert len(list(data)) == 3
    endless = Prefetch(iter(lambda: found[0], None), ahead=1)
    with endless:
        next(endless)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
