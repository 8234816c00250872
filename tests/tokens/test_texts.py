from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import SharesConfig, TokenizerStageConfig, TokensConfig, UniformLaw
from spiritlm_core.tokens.documents import Document
from spiritlm_core.tokens.fit import chosen_lines
from spiritlm_core.tokens.mix import Mixture, training_batches
from spiritlm_core.tokens.pack import Packed
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.text_stage import TEXT, TextStage, spaced
from spiritlm_core.tokens.texts import DOCUMENTS, TextPlanner, Texts
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.tokens.corpora import TEXT_VIEW, VOCABULARY, plain, random_rows, table, text_rows, text_view

CONFIG = TokensConfig(
    context_length=64,
    window=5,
    text_span=UniformLaw(minimum=2, maximum=6),
    speech_span=UniformLaw(minimum=1, maximum=4),
)
SEQUENCES = TableView.of(table(random_rows(7, recordings=8)))


def text_documents(
    view: TableView, vocabulary: Vocabulary, config: TokensConfig, *, split: str = "train"
) -> Iterator[Document]:
    """All text documents once, ordered by document_id, cut at the context length."""
    planner = TextPlanner(Texts.of(view, split, vocabulary), vocabulary, config, 0)
    for run in range(len(planner.keys(DOCUMENTS, 0))):
        for plan in planner.plans(DOCUMENTS, run, 0):
            yield planner.document(plan)


def batches(count: int, text: TableView | None = TEXT_VIEW, config: TokensConfig = CONFIG, **options: object) -> list:
    options.setdefault("seed", 0)
    return list(islice(training_batches(SEQUENCES, VOCABULARY, config, text=text, **options), count))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([16, 40, 1000]), st.integers(1, 4), st.booleans())
def test_documents_hold_every_token_once_and_are_cut_at_the_context(
    seed: int, length: int, shards: int, ends: bool
) -> None:
    vocabulary = Vocabulary(200, 50, 8, 4, bos=1 if ends else None, eos=2 if ends else None)
    rows = text_rows(seed)
    config = CONFIG.model_copy(update={"context_length": length})
    found = list(text_documents(text_view(rows[::-1], shards), vocabulary, config))
    bodies: dict[str, list[int]] = {}
    for document in found:
        ids = document.ids.tolist()
        assert len(ids) <= length
        assert document.stream == "text"
        head = [1] * ends + [vocabulary.text_marker]
        assert ids[: len(head)] == head
        body = ids[len(head) :]
        bodies.setdefault(document.key, []).extend(body)
    good = [row for row in rows if row["split"] == "train" and row.get("reject_stage") is None]
    assert bodies == {str(row["document_id"]): [*np.asarray(row["text_ids"]).tolist(), *[2] * ends] for row in good}
    assert list(bodies) == sorted(bodies)


def test_an_epoch_holds_every_document_of_every_stream_once() -> None:
    mixture = Mixture.of(SEQUENCES, VOCABULARY, CONFIG, seed=0, text=TEXT_VIEW)
    drawn: Counter[tuple[str, int, tuple[int, ...]]] = Counter()
    sizes = {name: len(stream._order) for name, stream in mixture.streams.items()}
    runs: dict[str, list[set[int]]] = {name: [set()] for name in sizes}
    while not mixture.has_shown(3):
        plans = mixture.draw()
        name, run = plans[0].stream, plans[0].run
        epoch = runs[name]
        if len(epoch[-1]) == sizes[name]:
            epoch.append(set())
        assert run not in epoch[-1]
        epoch[-1].add(run)
        drawn[name, len(epoch), tuple(plans[0].spans[0][1:])] += 1
    assert set(runs) == {"text", "documents", "speech", "interleaved"}
    assert all(len(epochs) >= 3 for epochs in runs.values())


def test_what_is_packed_is_what_was_drawn() -> None:
    """Tokens in = tokens out, window after window, whatever the stream."""
    drawing = Mixture.of(SEQUENCES, VOCABULARY, CONFIG, seed=0, text=TEXT_VIEW)
    packing = Mixture.of(SEQUENCES, VOCABULARY, CONFIG, seed=0, text=TEXT_VIEW)
    for _ in range(6):
        wanted, tokens = Counter[tuple[int, ...]](), 0
        while tokens < CONFIG.window * CONFIG.context_length:
            for plan in drawing.draw():
                wanted[tuple(plan.document().ids.tolist())] += 1
                tokens += plan.length
        rows = [packing.packed(row) for row in packing.next_window()]
        found = Counter(
            tuple(row.input_ids[row.document_ids == i].tolist()) for row in rows for i in range(len(row.streams))
        )
        assert found == wanted
        assert sum(row.tokens for row in rows) == tokens


def shares_of(rows: list[Packed]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for row in rows:
        for i, (stream, key) in enumerate(zip(row.streams, row.keys, strict=True)):
            counts["documents" if key.startswith("d") else stream] += int((row.document_ids == i).sum())
    return {name: count / counts.total() for name, count in counts.items()}


def test_documents_share_the_text_stream_by_size_or_as_told() -> None:
    found = shares_of([row for row, _ in batches(1200)])
    assert abs(found["text"] + found["documents"] - 1 / 3) < 0.01
    sizes = [len(d.ids) for d in text_documents(TEXT_VIEW, VOCABULARY, CONFIG)]
    transcripts = sum(
        len(r["text_ids"])
        for r in random_rows(7, recordings=8)
        if r.get("text_ids") is not None and r["split"] == "train"
    )  # type: ignore[arg-type]
    assert abs(found["documents"] * 3 - sum(sizes) / (sum(sizes) + transcripts)) < 0.05
    for part in (0.0, 0.75, 1.0):
        config = CONFIG.model_copy(update={"shares": SharesConfig(text=2, documents=part)})
        told = shares_of([row for row, _ in batches(1200, config=config)])
        assert abs(told.get("documents", 0.0) - part / 2) < 0.01
        assert abs(told.get("text", 0.0) - (1 - part) / 2) < 0.01


@pytest.mark.parametrize("text", [None, TEXT_VIEW], ids=["recordings", "with texts"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_read_one_stream_across_windows_and_epochs_from_any_state(workers: int, text: TableView | None) -> None:
    count = 400  # dozens of windows, and more than an epoch of every stream
    whole = [plain(row) for row, _ in batches(count + 40, text)]
    last = batches(count, text)[-1][1]
    assert last["window"] > 40
    assert all(epoch >= 1 for epoch, *_ in last["streams"].values())
    each = [batches(count // workers, text, rank=rank, world_size=workers) for rank in range(workers)]
    assert [plain(each[i % workers][i // workers][0]) for i in range(count)] == whole[:count]
    for stop in (1, 7, 33, count // workers):
        state = json.loads(json.dumps(each[-1][stop - 1][1]))
        for ranks in (1, 2, 5):
            rest = [batches(3, text, start_state=state, rank=rank, world_size=ranks) for rank in range(ranks)]
            joined = [plain(rest[i % ranks][i // ranks][0]) for i in range(3 * ranks)]
            assert joined == whole[stop * workers : stop * workers + 3 * ranks]


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 7), st.integers(0, 100))
def test_shards_and_their_order_make_no_difference(shards: int, seed: int) -> None:
    rows = text_rows(1)
    order = np.random.default_rng(seed).permutation(len(rows))
    view = text_view([rows[i] for i in order], shards)
    assert [plain(row) for row, _ in batches(30, view)] == [plain(row) for row, _ in batches(30)]


def test_without_texts_nothing_changes() -> None:
    empty = text_view([row for row in text_rows(1) if row["split"] != "train"])
    for text in (empty, TableView((), 0)):
        assert [(plain(row), state) for row, state in batches(40, text)] == [
            (plain(row), state) for row, state in batches(40, None)
        ]
    assert "documents" not in config_json(CONFIG)["shares"]
    assert config_json(SharesConfig(documents=0.5))["documents"] == 0.5
    assert SharesConfig.model_validate(SharesConfig().model_dump()) == SharesConfig()


@pytest.mark.parametrize("wrong", [-1, 200, 210, 5000])
def test_ids_of_another_tokenizer_are_one_clear_error(wrong: int) -> None:
    rows = [*text_rows(1), {"document_id": "z", "split": "train", "text": "", "text_ids": [5, wrong]}]
    with pytest.raises(LakeError, match=f"`text` has id {wrong}, beyond the 200 text tokens.*another tokenizer"):
        batches(1, text_view(rows))


def test_held_out_documents_are_kept_apart() -> None:
    held_out = {str(row["document_id"]) for row in text_rows(1) if row["split"] == "held_out"}
    assert held_out
    assert {d.key for d in text_documents(TEXT_VIEW, VOCABULARY, CONFIG, split="held_out")} <= held_out
    assert not {key for row, _ in batches(100) for key in row.keys} & held_out


KINDS = ("gpt2", "llama3", "qwen", "loose", "loose_sentencepiece", "unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_and_a_transcript_have_the_same_tokens(folders: dict[str, Path], kind: str) -> None:
    texts = ["  Please  enter your\n\n\nnumber, now. \n", "one", "\n", "naïve café's\r\nrésumé 10"]
    rows = table_of(
        [{"document_id": str(i), "split": "train", "text": text} for i, text in enumerate(texts)]
        + [{"document_id": "r", "reject_stage": "documents", "reject_reason": "bad"}], TEXT,
    )  # fmt: skip
    stage = TextStage(FrozenConfig(), {"tokenizer": folders[kind]})
    stage.setup()
    found = stage.process(rows.select(list(TextStage.inputs[0].columns or ())))
    assert found.schema == TEXT
    tokenizer = TextTokenizer.load(folders[kind])
    for row, text in zip(found.to_pylist(), texts, strict=False):
        if not text.split():
            assert row["reject_stage"] == "text"
            continue
        assert row["text_ids"] == tokenizer.encode(row["text"])
        if "\n" not in row["text"]:
            assert row["text_ids"] == tokenizer.encode_words(text).ids.tolist()
        assert row["text"].split() == text.split()
    assert found.to_pylist()[-1]["reject_reason"] == "bad"
    if kind in ("gpt2", "llama3"):
        assert found["text"][0].as_py() == " Please enter your\n\n number, now."


@given(st.text("ab \n\t\r", max_size=40))
def test_spacing_keeps_words_and_lines(text: str) -> None:
    assert spaced(text, lines=False) == "".join(f" {word}" for word in text.split())
    found = spaced(text, lines=True)
    assert found.split() == text.split()
    assert "\n\n\n" not in found
    lines = [line.split() for line in text.splitlines() if line.split()]
    assert [line.split() for line in found.split("\n") if line] == lines
    assert spaced(found, lines=True) == found


def test_the_tokenizer_learns_from_the_texts_too() -> None:
    audio = pa.table({"utterance_id": ["u"], "split": ["train"]})
    words = pa.table({"utterance_id": ["u"], "text": ["said  aloud"], "reject_stage": pa.array([None], pa.string())})
    split, text = ["train", "held_out", None], ["first line\n\nsecond  line", "secret", None]
    documents = pa.table(
        {"document_id": ["a", "b", "c"], "split": split, "text": text, "reject_stage": [None, None, "documents"]}
    )
    tables = {"audio": TableView.of(audio), "words": TableView.of(words)}
    assert chosen_lines(tables, TokenizerStageConfig()) == [" said aloud"]
    tables["documents"] = TableView.of(documents)
    assert sorted(chosen_lines(tables, TokenizerStageConfig())) == [" first line", " said aloud", " second line"]
