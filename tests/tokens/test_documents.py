from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.schema import Row
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import PoissonLaw, TokensConfig, UniformLaw
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.support.documents import documents
from tests.tokens.corpora import VOCABULARY, given_up, random_rows, read_spans, segment, table, without_text

STREAMS = ("text", "speech", "interleaved")
CONFIGS = st.builds(
    TokensConfig,
    context_length=st.sampled_from([16, 40, 100, 1000, 100_000]),
    text_span=st.sampled_from([UniformLaw(minimum=2, maximum=6), PoissonLaw(mean=3)]),
    speech_span=st.sampled_from([UniformLaw(minimum=1, maximum=4), UniformLaw(minimum=10, maximum=30)]),
)
LONG = TokensConfig(
    context_length=1_000_000, text_span=UniformLaw(minimum=2, maximum=6), speech_span=UniformLaw(minimum=1, maximum=4)
)


def made(rows: list[Row], stream: str, config: TokensConfig = LONG, epoch: int = 0, seed: int = 0) -> list[Document]:
    view = TableView.of(table(rows))
    return list(documents(view, VOCABULARY, config, stream=stream, split="train", seed=seed, epoch=epoch))


def runs(rows: list[Row], stream: str) -> list[list[Row]]:
    """Consecutive usable segments, said plainly."""

    def usable(row: Row) -> bool:
        return row.get("reject_stage") is None and (stream == "speech" or not row["speech_only"])

    found = []
    for _, group in groupby(rows, key=lambda row: row["recording_id"]):
        found += [list(part) for good, part in groupby(group, key=usable) if good]
    return found


def words(rows: list[Row]) -> list[tuple[list[int], list[int], bool]]:
    """Text ids, speech ids and can_switch of each word."""
    found = []
    for row in rows:
        t, s = (np.asarray(row[name]).tolist() for name in ("text_offsets", "speech_offsets"))
        text, speech, can = (np.asarray(row[name]).tolist() for name in ("text_ids", "speech_ids", "can_switch"))
        found += [(text[t[i] : t[i + 1]], speech[s[i] : s[i + 1]], can[i]) for i in range(len(can))]
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), CONFIGS)
def test_text_and_speech_streams_hold_every_token_once_in_order(seed: int, config: TokensConfig) -> None:
    rows = random_rows(seed, recordings=5)
    for stream, part in (("text", 0), ("speech", 1)):
        wanted = [token for run in runs(rows, stream) for word in words(run) for token in word[part]]
        found = made(rows, stream, config)
        assert [token for d in found for kind, ids in read_spans(d.ids) for token in ids] == wanted
        assert all(len(d.ids) <= config.context_length for d in found)
        assert all({kind for kind, _ in read_spans(d.ids)} == {stream} for d in found)


def follow(spans: list[tuple[str, list[int]]], run: list[tuple[list[int], list[int], bool]]) -> list[int]:
    """Walk through a run with the spans of its documents; returns the words in front of which a span started."""
    at, starts = 0, []
    for kind, ids in spans:
        starts.append(at)
        left = list(ids)
        assert left
        while left:
            own = run[at][kind == "speech"]
            assert left[: len(own)] == own, "a word was split"
            left, at = left[len(own) :], at + 1
        while at < len(run) and not run[at][kind == "speech"] and not run[at][2]:
            at += 1  # words of no tokens that belong to those before them
    assert at == len(run)
    return starts


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_interleaved_documents_say_every_word_once_and_switch_where_allowed(seed: int, epoch: int) -> None:
    rows = random_rows(seed, recordings=5)
    found = made(rows, "interleaved", epoch=epoch)
    wanted = runs(rows, "interleaved")
    assert len(found) == len(wanted)
    for document, run in zip(found, wanted, strict=True):
        spans = read_spans(document.ids)
        kinds = [kind for kind, _ in spans]
        assert all(one != other for one, other in pairwise(kinds))
        all_words = words(run)
        assert all(all_words[at][2] for at in follow(spans, all_words))
        assert document.ids[-1] == VOCABULARY.eos
        assert document.key == run[0]["recording_id"]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([60, 100, 300]))
def test_cutting_at_the_context_loses_and_changes_nothing(seed: int, length: int) -> None:
    rows = random_rows(seed, recordings=4)
    config = LONG.model_copy(update={"context_length": length})
    cut, whole = made(rows, "interleaved", config), made(rows, "interleaved")
    assert max(len(d.ids) for d in cut) <= length
    assert [i for d in cut for _, ids in read_spans(d.ids) for i in ids] == [
        i for d in whole for _, ids in read_spans(d.ids) for i in ids
    ]
    assert all(ids for d in cut for _, ids in read_spans(d.ids))
    ends = sum(d.ids[-1] == VOCABULARY.eos for d in cut)
    assert ends == len(whole)


def test_documents_fill_the_context() -> None:
    rng = np.random.default_rng(0)
    rows = [segment(rng, "r", i, 40, straddle=0, empty=0) for i in range(30)]
    for stream in STREAMS:
        lengths = [len(d.ids) for d in made(rows, stream, LONG.model_copy(update={"context_length": 200}))]
        assert min(lengths[:-1]) > 200 - 15  # a word more would not fit


def test_a_word_longer_than_the_context_is_cut() -> None:
    row = without_text(segment(np.random.default_rng(0), "r", 0, 40))
    found = made([row], "speech", LONG.model_copy(update={"context_length": 32}))
    assert len(found) > 3
    assert [i for d in found for _, ids in read_spans(d.ids) for i in ids] == np.asarray(row["speech_ids"]).tolist()


def test_the_pieces_of_a_long_word_stay_in_one_modality() -> None:
    text, speech = (
        np.arange(8),
        np.repeat(np.arange(8), 100),
    )  # word i is text token 10 + i, or 100 times speech token i
    row = {
        **segment(np.random.default_rng(0), "r", 0, 8, straddle=0, empty=0),
        "text_ids": text + 10,
        "text_offsets": np.arange(9),
        "can_switch": [True] * 8,
        "speech_ids": speech + VOCABULARY.speech_marker + 1,
        "speech_offsets": np.arange(9) * 100,
    }
    for epoch in range(20):
        found = made([row], "interleaved", LONG.model_copy(update={"context_length": 60}), epoch)
        ids = np.concatenate([d.ids for d in found])
        for i in range(8):
            counts = (ids == 10 + i).sum(), (ids == VOCABULARY.speech_marker + 1 + i).sum()
            assert counts in ((1, 0), (0, 100))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(0, 100))
def test_shards_and_their_order_make_no_difference(seed: int, shards: int, shuffle: int) -> None:
    rows = random_rows(seed, recordings=6)
    order = np.random.default_rng(shuffle).permutation(len(rows))
    parts = [[rows[i] for i in part] for part in np.array_split(order, shards)]
    view = TableView.of(*(table(part) for part in parts))
    for stream in STREAMS:
        found = documents(view, VOCABULARY, LONG, stream=stream, split="train", seed=1, epoch=2)
        for one, other in zip(found, made(rows, stream, seed=1, epoch=2), strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert (one.key, one.stream) == (other.key, stream)


def test_epochs_and_seeds_draw_afresh_and_other_recordings_do_not_matter() -> None:
    rows = random_rows(0)
    one = [d.ids.tolist() for d in made(rows, "interleaved")]
    assert one == [d.ids.tolist() for d in made(rows, "interleaved")]
    assert one != [d.ids.tolist() for d in made(rows, "interleaved", epoch=1)]
    assert one != [d.ids.tolist() for d in made(rows, "interleaved", seed=1)]
    some = [row for row in rows if row["recording_id"] != "r000"]
    fewer = [d.ids.tolist() for d in made(some, "interleaved")]
    assert fewer == one[-len(fewer) :]


def test_a_rejected_segment_separates_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    rows = [segment(rng, "r", i, 5) for i in range(3)]
    assert len(made(rows, "text")) == 1
    assert len(made([rows[0], given_up(rows[1]), rows[2]], "text")) == 2
    assert len(made([rows[0], without_text(rows[1]), rows[2]], "text")) == 2
    assert len(made([rows[0], without_text(rows[1]), rows[2]], "speech")) == 1


def test_splits_are_kept_apart_and_may_be_empty() -> None:
    rows = random_rows(0)
    assert not list(
        documents(TableView.of(table(rows)), VOCABULARY, LONG, stream="text", split="held_out", seed=0, epoch=0)
    )
    assert not made([], "interleaved")
    assert not list(documents(TableView((), 0), VOCABULARY, LONG, stream="text", split="train", seed=0, epoch=0))


def test_without_bos_and_eos_a_document_is_marker_and_tokens() -> None:
    rows = [segment(np.random.default_rng(0), "r", 0, 5)]
    plain = Vocabulary(VOCABULARY.text_size, VOCABULARY.hubert, VOCABULARY.pitch, VOCABULARY.style)
    (found,) = documents(TableView.of(table(rows)), plain, LONG, stream="text", split="train", seed=0, epoch=0)
    assert found.ids.tolist() == [plain.text_marker, *np.asarray(rows[0]["text_ids"]).tolist()]
    assert found.ids.dtype == np.int32


def test_another_vocabulary_and_damaged_rows_are_noticed() -> None:
    rows = random_rows(0, recordings=1)
    with pytest.raises(LakeError, match="made for another"):
        list(
            documents(
                TableView.of(table(rows)), Vocabulary(5, 5, 0, 0), LONG, stream="text", split="train", seed=0, epoch=0
            )
        )
    with pytest.raises(LakeError, match="text_offsets do not match"):
        made([{**rows[0], "text_ids": [1]}], "text")
    with pytest.raises(LakeError, match="different lengths"):
        made([{**rows[0], "can_switch": [True]}], "text")
    with pytest.raises(ValueError, match="no stream 'both'"):
        made(rows, "both")
