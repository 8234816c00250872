from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.lake.schema import Row
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import PairsConfig, SharesConfig, TokensConfig, UniformLaw
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.export import IGNORED, columns
from spiritlm_core.tokens.mix import training_batches
from spiritlm_core.tokens.pack import PADDING, Packed
from tests.support.documents import documents
from tests.tokens.corpora import VOCABULARY, given_up, random_rows, read_spans, segment, table, without_text

WHOLE = PairsConfig(crops=0, shots=0)
LONG = 1_000_000
KINDS = {"asr": ("speech", "text"), "tts": ("text", "speech")}
STREAM = st.sampled_from(sorted(KINDS))


def made(
    rows: list[Row], stream: str, pairs: PairsConfig, epoch: int = 0, length: int = LONG, seed: int = 0
) -> list[Document]:
    config = TokensConfig(context_length=length, pairs=pairs)
    view = TableView.of(table(rows))
    return list(documents(view, VOCABULARY, config, stream=stream, split="train", seed=seed, epoch=epoch))


def usable(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.get("reject_stage") is None and not row["speech_only"]]


def sides(row: Row, stream: str, first: int = 0, last: int | None = None) -> list[tuple[str, list[int]]]:
    """Question and answer of some words of a row, said plainly."""

    def ids(kind: str) -> list[int]:
        offsets = np.asarray(row[f"{kind}_offsets"]).tolist()
        return np.asarray(row[f"{kind}_ids"]).tolist()[offsets[first] : offsets[-1 if last is None else last]]

    return [(kind, ids(kind)) for kind in KINDS[stream]]


def crops(row: Row, stream: str, lengths: range) -> list[list[tuple[str, list[int]]]]:
    """Every crop of so many words, and those that reach over some more to where the modality may change."""
    places = [*np.flatnonzero(np.asarray(row["can_switch"])).tolist(), len(row["words"])]  # type: ignore[arg-type]
    found = [sides(row, stream)]
    for number, first in enumerate(places[:-1]):
        behind = places[number + 1 :]
        for words in lengths:
            end = next((place for place in behind if place >= first + words), behind[-1])
            found.append(sides(row, stream, first, end))
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), STREAM)
def test_each_usable_utterance_is_one_example_of_its_own(seed: int, stream: str) -> None:
    rows = random_rows(seed, recordings=5)
    found = made(rows, stream, WHOLE)
    assert [read_spans(one.ids) for one in found] == [sides(row, stream) for row in usable(rows)]
    assert [one.key for one in found] == [row["recording_id"] for row in usable(rows)]
    assert all(one.ids[-1] == VOCABULARY.eos and one.stream == stream for one in found)


def test_rejected_rows_and_rows_without_words_or_sound_make_no_example() -> None:
    rng = np.random.default_rng(0)
    rows = [segment(rng, "r", i, 5) for i in range(3)]
    silent = {**rows[2], "speech_ids": [], "speech_offsets": [0] * 6}
    for stream in KINDS:
        found = made([rows[0], given_up(rows[1]), without_text(rows[1]), silent], stream, PairsConfig(crops=1, shots=3))
        assert found
        assert all(read_spans(one.ids)[0] in [crop[0] for crop in crops(rows[0], stream, range(9))] for one in found)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), STREAM, st.integers(0, 3))
def test_crops_begin_and_end_where_the_modality_may_change_and_have_the_words_of_their_sound(
    seed: int, stream: str, epoch: int
) -> None:
    rows = random_rows(seed, recordings=3)
    law = UniformLaw(minimum=2, maximum=4)
    found = made(rows, stream, PairsConfig(crops=1, crop_words=law), epoch)
    assert len(found) == len(usable(rows))
    for one, row in zip(found, usable(rows), strict=True):
        assert read_spans(one.ids) in crops(row, stream, range(2, 5))


def test_crops_have_their_share_and_every_word_is_drawn_about_as_often() -> None:
    row = segment(np.random.default_rng(0), "r", 0, 30, straddle=0, empty=0)
    pairs = PairsConfig(crops=0.25, crop_words=UniformLaw(minimum=3, maximum=3))
    found = [read_spans(made([row], "asr", pairs, epoch)[0].ids) for epoch in range(1000)]
    parts = [spans for spans in found if spans != sides(row, "asr")]
    assert len(parts) / len(found) == pytest.approx(0.25, abs=0.03)
    places = [next(i for i in range(28) if sides(row, "asr", i, i + 3) == spans) for spans in parts]
    counts = np.bincount(places, minlength=28)
    assert counts.min() > 0.3 * counts.mean()
    assert counts.max() < 2.5 * counts.mean()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), STREAM, st.sampled_from([24, 60, 200]), st.integers(0, 3), st.sampled_from([0.0, 0.5]))
def test_what_is_too_long_for_the_context_is_cut_to_what_fits(
    seed: int, stream: str, length: int, shots: int, share: float
) -> None:
    rows = random_rows(seed, recordings=3)
    found = made(rows, stream, PairsConfig(crops=share, shots=shots), length=length)
    for one in found:
        assert len(one.ids) <= length
        kinds = [kind for kind, _ in read_spans(one.ids)]
        assert kinds == [*KINDS[stream]] * (len(kinds) // 2)
        assert all(ids for _, ids in read_spans(one.ids))
    if length == 200 and not shots:
        assert len(found) == len(usable(rows))


def test_over_the_epochs_every_place_of_a_long_utterance_is_shown() -> None:
    row = segment(np.random.default_rng(0), "r", 0, 40, straddle=0, empty=0)
    shown = [read_spans(made([row], "asr", WHOLE, epoch, length=60)[0].ids)[0][1] for epoch in range(400)]
    starts = {tuple(ids[:5]) for ids in shown}
    wanted = [tuple(sides(row, "asr", i)[0][1][:5]) for i in range(30)]
    assert {ids for ids in wanted if len(ids) == 5} <= starts


def test_solved_examples_stand_in_front_and_none_comes_twice() -> None:
    rows = usable(random_rows(3, recordings=8))
    whole = [sides(row, "tts") for row in rows]
    counts = []
    for epoch in range(4):
        for one, row in zip(made(rows, "tts", PairsConfig(crops=0, shots=3), epoch), rows, strict=True):
            spans = read_spans(one.ids)
            pairs = [spans[i : i + 2] for i in range(0, len(spans), 2)]
            assert pairs[-1] == sides(row, "tts")
            assert all(pair in whole for pair in pairs)
            assert all(pairs.count(pair) == 1 for pair in pairs)
            counts.append(len(pairs))
    assert set(counts) == {1, 2, 3, 4}
    assert counts.count(1) / len(counts) == pytest.approx(0.25, abs=0.15)


@given(st.integers(0, 1000), STREAM, st.integers(0, 2))
@settings(deadline=None, max_examples=25)
def test_the_loss_counts_the_answers_and_what_ends_them(seed: int, stream: str, shots: int) -> None:
    rows = random_rows(seed, recordings=3)
    question, answer = (
        VOCABULARY.speech_marker if kind == "speech" else VOCABULARY.text_marker for kind in KINDS[stream]
    )
    for one in made(rows, stream, PairsConfig(shots=shots)):
        assert one.predicted is not None
        wanted, inside = [], False
        for token in one.ids.tolist():
            wanted.append(inside)
            inside = token != question and (inside or token == answer)
        assert one.predicted.tolist() == wanted
        assert one.predicted[-1]
        assert one.targets.tolist() == one.ids[one.predicted].tolist()
    assert all(one.predicted is None for one in made(rows, stream, PairsConfig(loss="all")))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 5), STREAM)
def test_the_draw_depends_on_rows_seed_and_epoch_alone(seed: int, shards: int, stream: str) -> None:
    rows = random_rows(seed, recordings=4)
    config = TokensConfig(context_length=300, pairs=PairsConfig(shots=2))
    order = np.random.default_rng(seed).permutation(len(rows))
    view = TableView.of(*(table([rows[i] for i in part]) for part in np.array_split(order, shards)))
    shuffled = documents(view, VOCABULARY, config, stream=stream, split="train", seed=1, epoch=2)
    first = made(rows, stream, config.pairs, epoch=2, length=300, seed=1)
    assert [one.ids.tolist() for one in shuffled] == [one.ids.tolist() for one in first]
    for other in ({"epoch": 3, "seed": 1}, {"epoch": 2, "seed": 2}):
        drawn = made(rows, stream, config.pairs, length=300, **other)
        assert [one.ids.tolist() for one in drawn] != [one.ids.tolist() for one in first] or len(first) < 4


LABELS = ((7,), (8, 9, 10), None)


def labelled(rows: list[Row]) -> list[Row]:
    return [{**row, "label_ids": LABELS[number % 3]} for number, row in enumerate(rows)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_every_good_recording_with_a_label_is_a_whole_question_with_its_label(seed: int, shards: int) -> None:
    rows = labelled(random_rows(seed, recordings=5))
    found = made(rows, "classification", PairsConfig(crops=1))
    wanted = [row for row in rows if row.get("reject_stage") is None and row["label_ids"]]
    for one, row in zip(found, wanted, strict=True):
        speech = np.asarray(row["speech_ids"]).tolist()
        assert read_spans(one.ids) == [("speech", speech), ("text", [*row["label_ids"]])]  # type: ignore[misc]
        assert one.predicted is not None
        assert one.targets.tolist() == [*row["label_ids"], VOCABULARY.eos]  # type: ignore[misc]
    order = np.random.default_rng(seed).permutation(len(rows))
    view = TableView.of(*(table([rows[i] for i in part]) for part in np.array_split(order, shards)))
    config = TokensConfig(context_length=LONG, pairs=PairsConfig(crops=1))
    shuffled = documents(view, VOCABULARY, config, stream="classification", split="train", seed=0, epoch=0)
    assert [one.ids.tolist() for one in shuffled] == [one.ids.tolist() for one in found]
    assert not made(random_rows(seed), "classification", WHOLE)


def test_several_recordings_and_their_labels_make_a_few_shot_document() -> None:
    rows = [row for row in labelled(random_rows(1)) if row.get("reject_stage") is None and row["label_ids"]]
    answers = {tuple(np.asarray(row["speech_ids"]).tolist()): list(row["label_ids"]) for row in rows}  # type: ignore[call-overload]
    found = made(rows, "classification", PairsConfig(shots=4))
    for one in found:
        spans = [ids for _, ids in read_spans(one.ids)]
        assert [answers[tuple(ids)] for ids in spans[::2]] == spans[1::2]
    assert {len(read_spans(one.ids)) for one in found} == {2, 4, 6, 8, 10}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 4)))
def test_a_model_may_learn_to_speak_from_people_alone(seed: int, machines: set[int]) -> None:
    rows = random_rows(seed, recordings=5)
    recordings = sorted({str(row["recording_id"]) for row in rows})
    spoken = {recordings[number] for number in machines if number < len(recordings)}
    rows = [{**row, "origin": "synthetic" if row["recording_id"] in spoken else None} for row in rows]
    people = [row for row in rows if row["origin"] is None]
    config = PairsConfig(crops=0, spoken_by="people")
    said = [one.ids.tolist() for one in made(rows, "tts", config)]
    of_people = [one.ids.tolist() for one in made(people, "tts", WHOLE)] if people else []
    assert said == (of_people or [one.ids.tolist() for one in made(rows, "tts", WHOLE)])
    for one, other in zip(made(rows, "asr", config), made(rows, "asr", WHOLE), strict=True):
        assert one.ids.tolist() == other.ids.tolist()


def test_recordings_of_people_may_come_several_times_in_an_epoch() -> None:
    rows = random_rows(3, recordings=6)
    machine = str(rows[0]["recording_id"])
    rows = [{**row, "origin": "synthetic" if row["recording_id"] == machine else "recorded"} for row in rows]
    of_machine = [one.ids.tolist() for one in made([r for r in rows if r["recording_id"] == machine], "asr", WHOLE)]
    of_people = [one.ids.tolist() for one in made([r for r in rows if r["recording_id"] != machine], "asr", WHOLE)]
    found = [one.ids.tolist() for one in made(rows, "asr", PairsConfig(crops=0, people_times=3))]
    assert len(of_machine) > 1
    assert sorted(found) == sorted(of_machine + 3 * of_people)
    cut = [one.ids.tolist() for one in made(rows, "asr", PairsConfig(crops=1, people_times=3))]
    assert len({tuple(ids) for ids in cut}) > len(of_machine) + len(of_people), "each time another crop is drawn"


VIEW = TableView.of(table(random_rows(7, recordings=20)))
MIXED = TokensConfig(
    context_length=128,
    window=6,
    shares=SharesConfig(text=1, speech=0, interleaved=0, asr=2, tts=1),
    pairs=PairsConfig(shots=1),
)


def batches(count: int, config: TokensConfig = MIXED, **options: object) -> list[tuple[Packed, dict]]:
    return list(islice(training_batches(VIEW, VOCABULARY, config, seed=0, **options), count))  # type: ignore[arg-type]


def test_examples_are_mixed_by_share_and_packed_with_what_their_loss_counts() -> None:
    counts = dict.fromkeys(("text", "asr", "tts"), 0)
    for packed, _ in batches(400):
        counted = np.ones(128, bool) if packed.predicted is None else packed.predicted
        assert packed.predicted is None or not counted[packed.document_ids == PADDING].any()
        labels = columns(packed)["labels"]
        for number, stream in enumerate(packed.streams):
            mine = packed.document_ids == number
            counts[stream] += int(mine.sum())
            asked = VOCABULARY.text_marker if stream == "tts" else VOCABULARY.speech_marker
            assert counted[mine].all() == (stream == "text")
            assert (labels[mine][:2] == IGNORED).all() or stream == "text"
            assert asked in packed.input_ids[mine] or stream == "text"
    total = sum(counts.values())
    assert [counts[name] / total for name in counts] == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 60), st.integers(1, 3))
def test_going_on_from_a_state_equals_never_having_stopped(at: int, ranks: int) -> None:
    whole = [packed.input_ids.tolist() for packed, _ in batches(at + 10)]
    state = json.loads(json.dumps(batches(at)[-1][1]))
    rest = batches(3, start_state=state, rank=ranks - 1, world_size=ranks)
    assert [packed.input_ids.tolist() for packed, _ in rest] == whole[at + ranks - 1 :: ranks][:3]


def test_a_corpus_without_examples_is_mixed_as_before() -> None:
    plain = TokensConfig(context_length=128, window=6)
    drawn = batches(20, plain.model_copy(update={"pairs": PairsConfig(crops=0.1, shots=4)}))
    assert all(
        packed.predicted is None and set(packed.streams) <= {"text", "speech", "interleaved"} for packed, _ in drawn
    )
    assert [packed.input_ids.tolist() for packed, _ in drawn] == [
        packed.input_ids.tolist() for packed, _ in batches(20, plain)
    ]
