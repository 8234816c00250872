from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import SharesConfig, TokensConfig
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.mix import training_batches
from spiritlm_core.tokens.pack import PADDING, fit, packed
from tests.support.documents import documents
from tests.tokens.corpora import MIXED as CONFIG
from tests.tokens.corpora import VOCABULARY, given_up, plain, random_rows, table, without_text

STREAMS = ("text", "speech", "interleaved")
VIEW = TableView.of(table(random_rows(7, recordings=20)))


def batches(count: int, view: TableView = VIEW, config: TokensConfig = CONFIG, **options: object) -> list:
    options.setdefault("seed", 0)
    return list(islice(training_batches(view, VOCABULARY, config, **options), count))  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 90))
def test_fitting_places_every_document_once_and_wastes_little(lengths: list[int], capacity: int) -> None:
    rows = fit(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(row == sorted(row) for row in rows)
    used = sorted(sum(lengths[i] for i in row) for row in rows)
    assert not used or used[-1] <= capacity
    assert len(used) < 2 or used[0] + used[1] > capacity  # the two emptiest could not share one
    with pytest.raises(ValueError, match="does not fit"):
        fit([capacity + 1], capacity)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=20), max_size=40))
def test_packing_keeps_every_document_whole(bodies: list[list[int]]) -> None:
    given_documents = [Document(np.array(ids, np.int32), "text", str(i)) for i, ids in enumerate(bodies)]
    rows = [packed([given_documents[i] for i in row], 20) for row in fit([len(ids) for ids in bodies], 20)]
    found = {}
    for row in rows:
        assert row.input_ids.dtype == row.document_ids.dtype == np.int32
        assert len(row.input_ids) == len(row.document_ids) == 20
        for i, key in enumerate(row.keys):
            at = np.flatnonzero(row.document_ids == i)
            assert (np.diff(at) == 1).all()
            found[key] = row.input_ids[at].tolist()
        assert (row.input_ids[row.document_ids == PADDING] == 0).all()
    assert [found[str(i)] for i in range(len(bodies))] == bodies
    assert sum(row.tokens for row in rows) == sum(map(len, bodies))


def test_streams_are_mixed_by_token_share() -> None:
    shares = SharesConfig(text=1, speech=2, interleaved=3)
    counts = dict.fromkeys(STREAMS, 0)
    for row, _ in batches(600, config=CONFIG.model_copy(update={"shares": shares})):
        for i, stream in enumerate(row.streams):
            counts[stream] += int((row.document_ids == i).sum())
    total = sum(counts.values())
    for stream, share in zip(STREAMS, (1 / 6, 2 / 6, 3 / 6), strict=True):
        assert abs(counts[stream] / total - share) < 0.01
    assert total / (600 * 128) > 0.85  # the rest is padding


def test_an_epoch_holds_every_document_once_and_the_next_draws_anew() -> None:
    config = CONFIG.model_copy(update={"shares": SharesConfig(text=0, speech=0, interleaved=1)})
    seen: list[list[int]] = []
    for row, _ in batches(400, config=config):
        seen += [row.input_ids[row.document_ids == i].tolist() for i in range(len(row.streams))]
    for epoch in range(3):
        wanted = documents(VIEW, VOCABULARY, config, stream="interleaved", split="train", seed=0, epoch=epoch)
        assert all(seen.count(d.ids.tolist()) >= 1 for d in wanted)
    one = {
        tuple(d.ids) for d in documents(VIEW, VOCABULARY, config, stream="interleaved", split="train", seed=0, epoch=0)
    }
    assert sum(tuple(ids) in one for ids in seen) < len(seen) / 2


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 70), st.integers(1, 30))
def test_going_on_from_a_state_equals_never_having_stopped(at: int, count: int) -> None:
    whole = batches(at + count)
    state = json.loads(json.dumps(whole[at - 1][1])) if at else None
    rest = batches(count, start_state=state)
    assert [plain(row) for row, _ in rest] == [plain(row) for row, _ in whole[at:]]
    assert len(json.dumps(whole[-1][1])) < 300


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(0, 20), st.integers(1, 5))
def test_ranks_share_one_global_order_and_their_states_fit_any_number(ranks: int, steps: int, other: int) -> None:
    whole = [plain(row) for row, _ in batches(ranks * steps + 60)]
    parts = [batches(steps + 1, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert [plain(parts[i % ranks][i // ranks][0]) for i in range(ranks * (steps + 1))] == whole[: ranks * (steps + 1)]
    if steps:
        for part in parts:  # the state of any rank serves
            rest = batches(2, start_state=part[steps - 1][1], rank=other - 1, world_size=other)
            first = ranks * steps + other - 1
            assert [plain(row) for row, _ in rest] == [whole[first], whole[first + other]]


def test_shards_and_their_order_make_no_difference() -> None:
    rows = random_rows(7, recordings=20)
    order = np.random.default_rng(0).permutation(len(rows))
    view = TableView.of(*(table([rows[i] for i in part]) for part in np.array_split(order, 5)))
    assert [plain(row) for row, _ in batches(50, view=view)] == [plain(row) for row, _ in batches(50)]
    assert [plain(row) for row, _ in batches(50, seed=1)] != [plain(row) for row, _ in batches(50)]


def test_streams_without_documents_are_left_out() -> None:
    rows = [without_text(row) for row in random_rows(3) if row.get("reject_stage") is None]
    found = batches(20, view=TableView.of(table(rows)))
    assert {stream for row, _ in found for stream in row.streams} == {"speech"}
    with pytest.raises(SpiritLMError, match="nothing to train on"):
        batches(1, view=TableView.of(table([given_up(row) for row in rows])))
    with pytest.raises(ValueError, match="rank 2 of 2"):
        batches(1, rank=2, world_size=2)
