from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.evaluate.heldout.statistics import SHOWN_REASONS, corpus_statistics, row_statistics, unit_statistics
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from tests.evaluate.corpora import DROPS, SECONDS, SIZES, Corpus


def test_drop_reasons_add_up_to_the_input(corpus: Corpus) -> None:
    rows = row_statistics(corpus.tables)
    assert rows["total"] == 48
    assert rows["good"] + sum(reason["rows"] for reason in rows["reasons"]) == rows["total"]
    assert rows["good"] == 48 - len(DROPS)
    assert rows["reasons"][0] == {"stage": "words", "reason": "no <b>words</b>", "rows": 2}


def test_every_stage_accounts_for_every_row(corpus: Corpus) -> None:
    stages = row_statistics(corpus.tables)["stages"]
    assert [stage["stage"] for stage in stages] == ["audio", "words", "units", "sequences"]
    assert [stage["rejected"] for stage in stages] == [1, 2, 1, 0]
    for before, stage in zip([None, *stages], stages, strict=False):
        assert stage["rows_in"] == stage["upstream"] + stage["rejected"] + stage["rows_out"]
        assert before is None or stage["upstream"] == before["upstream"] + before["rejected"]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80))
def test_many_reasons_are_cut_short_without_losing_rows(reasons: list[int]) -> None:
    rows = [
        {"utterance_id": str(i), "recording_id": "r", "source_uri": "x",
         "reject_stage": "audio" if reason else None, "reject_reason": f"reason {reason}" if reason else None}
        for i, reason in enumerate(reasons)
    ]  # fmt: skip
    found = row_statistics({"audio": TableView.of(table_of(rows, AUDIO))})
    assert len(found["reasons"]) <= SHOWN_REASONS + 1
    assert found["good"] + sum(reason["rows"] for reason in found["reasons"]) == len(rows)


def test_counts_of_the_corpus(corpus: Corpus) -> None:
    found = corpus_statistics(corpus.tables, SIZES)
    audio, words, tokens = found["audio"], found["words"], found["tokens"]
    spoken = sum(len(row["words"]) for row in corpus.tables["words"].read().to_pylist() if row["words"])
    assert words["words"] == spoken
    assert words["interpolated"] == 45  # one in each utterance that has words
    assert words["distinct"] == 10
    assert words["mean_score"] == pytest.approx(0.9)
    assert audio["utterances"] == 47
    assert audio["speakers"] == 3
    assert sum(audio["duration_counts"]) == 47
    assert audio["hours"] == pytest.approx(sum(audio["hours_by_split"].values()), abs=2e-4)
    sequences = [row for row in corpus.tables["sequences"].read().to_pylist() if row["reject_stage"] is None]
    assert tokens["speech"] == sum(len(row["speech_ids"]) for row in sequences)
    assert tokens["text_held_out"] == sum(len(row["text_ids"]) for row in sequences if row["split"] == "held_out")
    assert tokens["speech_per_second"] == pytest.approx(3 / SECONDS, rel=1e-3)


def test_synthetic_speech_is_counted_by_engine(corpus: Corpus) -> None:
    spoken = {"espeak": "speak://espeak/en?text=a", "piper": "speak://piper/joe?text=a", "files": "file:///made.wav"}
    rows = [
        {"utterance_id": str(i), "recording_id": str(i), "duration": 36.0, "origin": origin, "source_uri": uri}
        for origin in ("recorded", "synthetic", "synthetic")
        for i, uri in enumerate(spoken.values())
    ]
    found = corpus_statistics({**corpus.tables, "audio": TableView.of(table_of(rows, AUDIO))}, SIZES)["audio"]
    assert found["hours_synthetic"] == dict.fromkeys(sorted(spoken), 0.02)
    assert found["hours"] == 0.09


@given(st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=8))
def test_unit_statistics_against_a_slow_count(lists: list[list[int]]) -> None:
    found = unit_statistics(iter([pa.array(lists, pa.list_(pa.int16()))]), 6)
    flat = [unit for units in lists for unit in units]
    followers = [(a, b) for units in lists for a, b in pairwise(units)]
    assert found["counts"] == [flat.count(unit) for unit in range(6)]
    assert found["used"] == len(set(flat))
    expected = np.mean([a == b for a, b in followers]) if followers else 0
    assert found["repeats"] == pytest.approx(expected, abs=1e-6)
    assert found["perplexity"] <= found["used"] + 1e-3


def test_even_use_has_as_much_perplexity_as_classes() -> None:
    found = unit_statistics(iter([pa.array([[0, 1, 2, 3]], pa.list_(pa.int16()))]), 10)
    assert (found["perplexity"], found["used"], found["repeats"]) == (4.0, 4, 0.0)


def test_shards_do_not_matter(corpus: Corpus) -> None:
    whole = {name: TableView.of(view.read()) for name, view in corpus.tables.items()}
    assert corpus_statistics(whole, SIZES) == corpus_statistics(corpus.tables, SIZES)


def test_a_base_corpus_has_hubert_only(corpus: Corpus) -> None:
    assert list(corpus_statistics(corpus.tables, {"hubert": 24, "pitch": 0, "style": 0})["units"]) == ["hubert"]


def test_an_empty_corpus_is_counted_too() -> None:
    from spiritlm_core.align.stage import WORDS
    from spiritlm_core.audio.stage import AUDIO
    from spiritlm_core.speech.stage import UNITS
    from spiritlm_core.tokens.stage import SEQUENCES

    schemas = {"audio": AUDIO, "words": WORDS, "units": UNITS, "sequences": SEQUENCES}
    empty = {name: TableView.of(table_of([], schema)) for name, schema in schemas.items()}
    found = corpus_statistics(empty, SIZES)
    assert found["rows"]["total"] == found["audio"]["utterances"] == found["units"]["hubert"]["frames"] == 0
    assert not found["audio"]["held_out_synthetic"]


def test_a_corpus_without_people_is_known_by_what_is_held_out(corpus: Corpus) -> None:
    def judged(*held_out: str) -> bool:
        about = {"recording_id": "r", "duration": 1.0, "source_uri": "file:///a.wav"}
        parts = [("train", "synthetic"), *(("held_out", origin) for origin in held_out)]
        rows = [{**about, "utterance_id": str(i), "split": s, "origin": o} for i, (s, o) in enumerate(parts)]
        tables = {**corpus.tables, "audio": TableView.of(table_of(rows, AUDIO))}
        return bool(corpus_statistics(tables, SIZES)["audio"]["held_out_synthetic"])

    assert [judged(), judged("synthetic"), judged("synthetic", "recorded")] == [False, True, False]
