"""Copies of the recordings: the speech tokens of their words, and which of them training draws."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.stage import COPIES
from spiritlm_core.tokens.config import PAIRS, SequencesStageConfig, SharesConfig, TokensConfig, UniformLaw
from spiritlm_core.tokens.corpus import STREAMS, Corpus
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.mix import Mixture, training_batches
from spiritlm_core.tokens.preview import previews
from spiritlm_core.tokens.speech import Streams, merge_streams
from spiritlm_core.tokens.stage import SEQUENCES, CopiedSequencesStage, SequencesStage, encodings
from tests.support.documents import documents
from tests.tokens import tokenizers_for_tests as make
from tests.tokens.corpora import ROWS, VOCABULARY, as_before_blocks, random_rows, table, with_copies
from tests.tokens.finished import rows, small_lake, tables

SIZES = SequencesStageConfig(hubert=60, pitch=9, style=5)
CONFIG = TokensConfig(
    context_length=128,
    window=6,
    text_span=UniformLaw(minimum=2, maximum=6),
    speech_span=UniformLaw(minimum=1, maximum=4),
)
ORDER = "bd11ea4a8780376a60efc2e7d416c4a83a3d28bbcf83ca2b3688b6a6000dc1af"
"""Of the first 120 sequences of VIEW, as they were before there were copies."""
VIEW = TableView.of(table(ROWS))


def digest(view: TableView, count: int = 120, **options: object) -> str:
    made = hashlib.sha256()
    for packed, state in islice(training_batches(view, VOCABULARY, CONFIG, seed=3, **options), count):  # type: ignore[arg-type]
        made.update(packed.input_ids.tobytes() + packed.document_ids.tobytes())
        made.update(repr((packed.streams, packed.keys, as_before_blocks(state))).encode())
    return made.hexdigest()


def test_without_copies_the_order_is_what_it_was() -> None:
    assert digest(VIEW) == ORDER
    assert digest(with_copies(ROWS, 0)) == ORDER
    assert digest(with_copies(ROWS, 3, missing=1.0)) == ORDER
    assert digest(with_copies(ROWS, 3)) != ORDER


def test_every_epoch_draws_one_encoding_of_every_recording_in_every_stream() -> None:
    view = with_copies(ROWS, 3)
    views = [TableView.of(rows) for rows in encodings(view.read())]
    for stream in STREAMS:
        drawn = set()
        for epoch in range(12):
            options = {"stream": stream, "split": "train", "seed": 5, "epoch": epoch}
            mine = _by_run(view, options)
            plain = [_by_run(one, options) for one in views]
            for recording, ids in mine.items():
                matching = [number for number in range(4) if plain[number][recording] == ids]
                assert matching
                drawn.update((recording, number) for number in matching)
        assert len(drawn) >= 3.5 * len(mine)  # nearly every recording was heard in all four ways


def _by_run(view: TableView, options: dict) -> dict[str, list[list[int]]]:
    """The documents of each recording that is one run; in streams of examples that is one of one segment."""
    found: dict[str, list[list[int]]] = {}
    for document in documents(view, VOCABULARY, CONFIG, **options):
        if document.key in GOOD and (options["stream"] not in PAIRS or f"{document.key}-1" not in UTTERANCES):
            found.setdefault(document.key, []).append(document.ids.tolist())
    return found


UTTERANCES = {row["utterance_id"] for row in ROWS}
GOOD = {row["recording_id"] for row in ROWS} - {
    row["recording_id"] for row in ROWS if row.get("reject_stage") is not None or row["speech_only"]
}
"""Recordings whose segments are all joined."""


def test_a_copy_that_is_missing_is_the_recording_itself() -> None:
    corpus = Corpus.of(with_copies(ROWS, 2, missing=0.5), "train", VOCABULARY, 128)
    assert len(corpus.copies) == 2
    same = []
    for copy in corpus.copies:
        assert copy.text is corpus.text
        for first, last in zip(corpus.segments, corpus.segments[1:], strict=False):
            ends = slice(corpus.speech.offsets[first], corpus.speech.offsets[last])
            if ends.stop > ends.start:
                same.append(np.array_equal(corpus.speech.ids[ends], copy.speech.ids[ends]))
    assert 0.35 < np.mean(same) < 0.65
    assert Corpus.of(with_copies(ROWS, 2), "train", VOCABULARY, 128, copies=False).copies == ()


def test_what_is_held_out_is_read_as_it_is() -> None:
    split = [{**row, "split": "held_out" if row["recording_id"] > "r010" else "train"} for row in ROWS]
    assert digest(with_copies(split, 3), split="held_out") == digest(TableView.of(table(split)), split="held_out")


def test_going_on_from_a_state_and_other_shards_give_the_same_encodings() -> None:
    view = with_copies(ROWS, 3)
    whole = list(islice(training_batches(view, VOCABULARY, CONFIG, seed=1), 60))
    rest = islice(training_batches(view, VOCABULARY, CONFIG, seed=1, start_state=whole[36][1]), 23)
    assert [packed.input_ids.tolist() for packed, _ in rest] == [packed.input_ids.tolist() for packed, _ in whole[37:]]
    shards = TableView.of(*reversed([shard for shard in view.shards()]))  # noqa: C416
    assert digest(shards) == digest(view)


@pytest.mark.parametrize("pairs", [{}, {"spoken_by": "people"}, {"people_times": 3}])
def test_the_copies_have_the_same_examples_whoever_spoke(pairs: dict) -> None:
    rows = [{**row, "origin": "synthetic" if number % 2 else "recorded"} for number, row in enumerate(ROWS)]
    config = CONFIG.model_copy(update={"pairs": CONFIG.pairs.model_copy(update=pairs)})
    corpus = Corpus.of(with_copies(rows, 2), "train", VOCABULARY, config.context_length, pairs=config.pairs)
    for copy in corpus.copies:
        for stream in PAIRS:
            assert copy.runs(stream).keys.tolist() == corpus.runs(stream).keys.tolist()
    drawn = training_batches(with_copies(rows, 2), VOCABULARY, config, seed=1)
    assert len(list(islice(drawn, 40))) == 40


def test_words_too_long_for_the_context_may_be_cut_otherwise_in_a_copy() -> None:
    (row,) = random_rows(0, recordings=1)[:1]
    long = {**row, "words": ["a", "b"], "can_switch": [True, True], "text_ids": [5, 6], "text_offsets": [0, 1, 2]}
    low = VOCABULARY.speech_marker + 1
    long |= {"speech_ids": np.full(20, low), "speech_offsets": [0, 10, 20], "speech_only": False, "reject_stage": None}
    copy = {"speech_ids": np.full(50, low + 1), "speech_offsets": [0, 40, 50], "can_switch": [True, True]}
    view = TableView.of(table_of([{**long, "copies": [copy]}], CopiedSequencesStage.schema))
    corpus = Corpus.of(view, "train", VOCABULARY, 32)
    assert (corpus.segments.tolist(), corpus.copies[0].segments.tolist()) == ([0, 2], [0, 3])
    mixture = Mixture.of(view, VOCABULARY, TokensConfig(context_length=32, window=1), seed=0)
    lengths = {len(plan.document().ids) == plan.length for _ in range(40) for plan in mixture.draw()}
    assert lengths == {True}


def copied(units: list[Row], seed: int = 1) -> list[Row]:
    """Rows of `copies`: every second recording is held out or rejected, the others have two copies."""
    rng, found = np.random.default_rng(seed), []
    for row in units:
        copies = []
        for start, speed in ((0.02, 1.0), (0.0, 1.25)):
            seconds = len(row["hubert"]) / 25 / speed  # type: ignore[arg-type]
            streams = {
                name: rng.integers(0, size, int(seconds * rate))
                for name, size, rate in (("hubert", 60, 25), ("pitch", 9, 12.5), ("style", 5, 1))
            }
            copies.append({"start": start, "speed": speed, "room": 0, **streams})
        found.append({"utterance_id": row["utterance_id"], "copies": copies})
    return found


def test_each_copy_gives_the_words_the_tokens_that_it_has_in_their_time(folders: dict[str, Path]) -> None:
    parts = rows(["one two three four five six", "seven eight nine", "ten", "eleven twelve"])
    parts[1][2].update(words=[], text=None)
    copies = copied(parts[2])
    copies[1] |= {"copies": None, "reject_stage": "copies", "reject_reason": "for a test"}
    copies[3]["copies"][0].update(hubert=[], pitch=[], style=[])  # type: ignore[index]
    stage = CopiedSequencesStage(SIZES, {"tokenizer": folders["gpt2"]})
    found = stage.process(*tables(*parts), table_of(copies, COPIES))
    assert found.schema == CopiedSequencesStage.schema
    plain = SequencesStage(SIZES, {"tokenizer": folders["gpt2"]}).process(*tables(*parts))
    assert found.drop_columns("copies") == plain
    whole, rejected, wordless, little = found["copies"].to_pylist()
    assert (rejected, little[0]) == ([], None)
    assert len(little[1]["speech_ids"]) == little[1]["speech_offsets"][-1] > 0
    assert [copy["speech_offsets"] for copy in wordless] == [[0, len(copy["speech_ids"])] for copy in wordless]
    vocabulary = vocabulary_for(folders["gpt2"], SIZES)
    starts = [word["start"] for word in parts[1][0]["words"]]  # type: ignore[union-attr]
    for copy, made in zip(copies[0]["copies"], whole, strict=True):  # type: ignore[arg-type]
        merged = merge_streams(Streams(copy["hubert"], copy["pitch"], copy["style"]))
        assert made["speech_ids"] == merged.ids(vocabulary).tolist()
        heard = copy["start"] + copy["speed"] * merged.times
        for i, (first, last) in enumerate(zip(made["speech_offsets"], made["speech_offsets"][1:], strict=False)):
            assert i == 0 or (heard[first:last] >= starts[i]).all()
            assert i == len(starts) - 1 or (heard[first:last] < starts[i + 1]).all()


def test_copies_of_other_rows_stop_the_run(folders: dict[str, Path]) -> None:
    parts = rows(["one two"])
    copies = [{**row, "utterance_id": "another"} for row in copied(parts[2])]
    with pytest.raises(LakeError, match="same rows"):
        CopiedSequencesStage(SIZES, {"tokenizer": folders["gpt2"]}).process(*tables(*parts), table_of(copies, COPIES))


def test_a_rejected_row_has_no_copies(folders: dict[str, Path]) -> None:
    parts = rows(["one two"])
    parts[1][0] = {"utterance_id": "u0", "reject_stage": "words", "reject_reason": "no alignment"}
    found = CopiedSequencesStage(SIZES, {"tokenizer": folders["gpt2"]}).process(
        *tables(*parts), table_of(copied(parts[2]), COPIES)
    )
    assert (found["reject_stage"].to_pylist(), found["copies"].to_pylist()) == (["words"], [None])


def test_a_preview_shows_the_tokens_of_the_copy_that_was_drawn(tmp_path: Path) -> None:
    lake, recipe = small_lake(tmp_path / "lake", make.byte_level(tmp_path / "gpt2", "gpt2"), texts=False, copies=2)
    corpus = _opened(lake, recipe)
    shares = SharesConfig(text=0, speech=0, interleaved=1).model_dump()
    seen = set()
    for epoch in range(4):
        mixture = corpus.mixture(seed=0, epoch=epoch, shares=shares)
        shown = [*previews(corpus, stream="interleaved", count=6, epoch=epoch)]
        plans = [plan for _ in range(12) for plan in mixture.draw()][: len(shown)]
        for preview, plan in zip(shown, plans, strict=True):
            assert preview.copy == plan.planner.copy
            seen.add(preview.copy)
            spans = [i for span in preview.spans for i in span.ids]
            assert spans == [i for i in preview.ids if i in set(spans)]
            assert all(word.word for span in preview.spans for word in span.words)
    assert seen == {0, 1, 2}


def _opened(lake: Lake, recipe: object):
    from spiritlm_core.tokens.finished import FinishedCorpus

    return FinishedCorpus.open(lake, recipe.name, recipe.token_settings, texts=False)  # type: ignore[attr-defined]


def test_the_columns_of_sequences_are_what_they_were() -> None:
    assert "copies" not in SEQUENCES.names
    assert [name for name in CopiedSequencesStage.schema.names if name != "copies"] == SEQUENCES.names
    assert CopiedSequencesStage.schema.names[-2:] == ["reject_stage", "reject_reason"]
