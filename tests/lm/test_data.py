from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.data import IGNORED, Batch, Prefetch, Step, model_inputs, position_ids, steps
from spiritlm_core.lm.errors import TokenRangeError
from spiritlm_core.lm.model import build_model
from spiritlm_core.lm.train import token_losses
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.pack import Packed, packed
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.lm.conftest import TINY

VOCABULARY = Vocabulary(100, hubert=20, pitch=4, style=3, bos=1, eos=2)
LENGTH = 48


def pack_of(lengths: list[int], seed: int = 0) -> Packed:
    rng = np.random.default_rng([seed, *lengths])
    ids = [rng.integers(0, VOCABULARY.size, length).astype(np.int32) for length in lengths]
    return packed([Document(i, STREAMS[k % 3], f"r{k}") for k, i in enumerate(ids)], LENGTH)


lengths = st.lists(st.integers(1, 20), min_size=1, max_size=8).filter(lambda values: sum(values) <= LENGTH)


@settings(max_examples=25, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=3), st.sampled_from(["sdpa", "flash_attention_2"]))
def test_packed_losses_equal_those_of_documents_alone(rows: list[list[int]], layout: str) -> None:
    """Both ways of keeping attention within a document, against no packing at all."""
    model = MODEL.eval()
    packs = [pack_of(row) for row in rows]
    batch = Batch.of(packs, VOCABULARY.size)
    with torch.inference_mode():
        together = token_losses(model, batch, layout)
        for row, pack in enumerate(packs):
            for number in range(len(pack.streams)):
                ids = torch.from_numpy(pack.input_ids[pack.document_ids == number]).long()[None]
                scores = model(input_ids=ids, use_cache=False).logits
                alone = torch.nn.functional.cross_entropy(scores[0, :-1], ids[0, 1:], reduction="none")
                here = together[row][torch.from_numpy(pack.document_ids == number)]
                torch.testing.assert_close(here[:-1], alone, rtol=1e-4, atol=1e-5)
                assert here[-1] == 0


MODEL = build_model(LmConfig(architecture=TINY), VOCABULARY, context_length=LENGTH)


@given(lengths)
@settings(max_examples=50, deadline=None)
def test_targets_stay_in_their_document_and_positions_restart(row: list[int]) -> None:
    pack = pack_of(row)
    batch = Batch.of([pack], VOCABULARY.size)
    predicted = batch.targets[0] != IGNORED
    assert int(predicted.sum()) == sum(row) - len(row) == int(batch.counts()[:-1].sum())
    assert int(batch.counts()[-1]) == sum(row)
    where = np.flatnonzero(predicted.numpy())
    assert (batch.targets[0].numpy()[where] == pack.input_ids[where + 1]).all()
    positions = position_ids(batch.document_ids)[0].numpy()
    expected = [place for length in [*row, LENGTH - sum(row)] for place in range(length)]
    assert positions.tolist() == expected


def test_out_of_range_ids_are_a_clear_error() -> None:
    pack = pack_of([5])
    for wrong in (-1, VOCABULARY.size):
        ids = pack.input_ids.copy()
        ids[2] = wrong
        with pytest.raises(TokenRangeError, match=f"token id {wrong} .* 0 to {VOCABULARY.size - 1}"):
            Batch.of([Packed(ids, pack.document_ids, pack.streams, pack.keys)], VOCABULARY.size)


def test_flash_layout_has_one_row_and_no_mask() -> None:
    batch = Batch.of([pack_of([5, 9]), pack_of([7])], VOCABULARY.size)
    inputs = model_inputs(batch, "flash_attention_2")
    assert inputs["input_ids"].shape == inputs["position_ids"].shape == (1, 2 * LENGTH)
    assert "attention_mask" not in inputs


def test_prefetch_keeps_order_hands_over_errors_and_stops() -> None:
    def source() -> object:
        for number in range(7):
            yield pack_of([number + 1]), {"at": number}
        raise ValueError("the disk is gone")

    with Prefetch(steps(source(), VOCABULARY.size, 2), ahead=1) as data:  # type: ignore[arg-type]
        found: list[Step] = [next(data) for _ in range(3)]
        assert [step.state["at"] for step in found] == [1, 3, 5]
        with pytest.raises(ValueError, match="the disk is gone"):
            next(data)
    with Prefetch(iter(found), ahead=1) as data:
        assert len(list(data)) == 3
    endless = Prefetch(iter(lambda: found[0], None), ahead=1)
    with endless:
        next(endless)
    assert not endless._thread.is_alive()
