from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spiritlm_core.config_files import load_config
from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.explore.examples import examples
from spiritlm_core.lake.lake import Lake
from spiritlm_core.recipe import Recipe
from spiritlm_core.tokens.config import PairsConfig
from spiritlm_core.tokens.export import IGNORED, META_FILE, PACKED, columns, export
from spiritlm_core.tokens.finished import FinishedCorpus
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.mix import training_batches
from spiritlm_core.tokens.pack import PADDING, Packed
from spiritlm_core.tokens.preview import names, previews
from spiritlm_core.tokens.text import TextTokenizer
from tests.tokens.finished import RECIPE, SENTENCES, TEXTS, small_lake


@pytest.fixture(scope="module", params=[False, True], ids=["recordings", "with texts"])
def corpus(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> FinishedCorpus:
    lake, recipe = small_lake(tmp_path_factory.mktemp("lake"), folders["gpt2"], texts=request.param)
    return opened(lake, recipe)


def opened(lake: Lake, recipe: Recipe, asked: str | None = None) -> FinishedCorpus:
    return FinishedCorpus.open(lake, recipe.name, recipe.token_settings, texts=bool(recipe.texts), asked=asked)


def training(corpus: FinishedCorpus, count: int, split: str = "train") -> list[Packed]:
    stream = training_batches(corpus.sequences, corpus.vocabulary, corpus.config, seed=3, split=split, text=corpus.text)
    return [packed for packed, _ in islice(stream, count)]


def rows_of(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_lake_alone_says_how_its_corpus_is_mixed(folders: dict[str, Path], tmp_path: Path) -> None:
    lake, recipe = small_lake(tmp_path, folders["gpt2"], texts=True)
    assert FinishedCorpus.as_trained(lake, recipe.name).fingerprints == opened(lake, recipe).fingerprints
    html = examples(lake, recipe.name, "speech", count=2, epoch=0)
    assert html.count('<pre class="example">') == 2
    assert '<span class="marker">[Speech]</span>' in html
    assert examples(lake, recipe.name, None, count=8, epoch=1).count('<pre class="example">') == 8


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_other_trainers_get_what_training_sees_in_its_order(corpus: FinishedCorpus, split: str, tmp_path: Path) -> None:
    meta = export(corpus, tmp_path / "out", seed=3, split=split, epochs=2, shard_tokens=128 * 10)
    found = rows_of(tmp_path / "out")
    wanted = training(corpus, len(found), split)
    assert [row["input_ids"] for row in found] == [packed.input_ids.tolist() for packed in wanted]
    assert [tuple(row["segment_streams"]) for row in found] == [packed.streams for packed in wanted]
    assert [tuple(row["segment_ids"]) for row in found] == [packed.keys for packed in wanted]
    files = sorted((tmp_path / "out/data").iterdir())
    assert [pq.read_metadata(path).num_rows for path in files[:-1]] == [10] * (len(files) - 1)
    assert pq.read_schema(files[0]) == PACKED
    assert meta == json.loads((tmp_path / "out" / META_FILE).read_text())
    assert meta["sequences"] == len(found)
    assert meta["tokens"] == sum(sum(row["attention_mask"]) for row in found) == sum(meta["tokens_by_stream"].values())
    assert min(meta["epochs_begun"].values()) >= 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_columns_say_which_document_a_token_is_in(corpus: FinishedCorpus) -> None:
    for packed in training(corpus, 30):
        row = columns(packed)
        o = row["segment_offsets"].tolist()
        assert len(o) == len(packed.streams) + 1
        assert o[-1] == row["attention_mask"].sum() == packed.tokens
        for i, (a, b) in enumerate(pairwise(o)):
            assert (packed.document_ids[a:b] == i).all()
            assert row["position_ids"][a:b].tolist() == list(range(b - a))
            assert row["labels"][a] == IGNORED
            assert row["labels"][a + 1 : b].tolist() == packed.input_ids[a + 1 : b].tolist()
        assert (row["labels"][o[-1] :] == IGNORED).all()
        assert (packed.document_ids[o[-1] :] == PADDING).all()


def test_tokens_that_no_loss_counts_have_no_label() -> None:
    ids, documents = np.array([5, 6, 7, 8, 0], np.int32), np.array([0, 0, 0, 1, PADDING], np.int32)
    packed = Packed(ids, documents, ("text", "text"), ("a", "b"), np.array([True, False, True, True, False]))
    assert columns(packed)["labels"].tolist() == [IGNORED, IGNORED, 7, IGNORED, IGNORED]


def test_the_folder_loads_as_a_tokenizer_and_as_a_data_set(corpus: FinishedCorpus, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    meta = export(corpus, tmp_path / "out", seed=3, epochs=None, tokens=2000)
    assert 2000 <= meta["tokens"] < 2000 + 128
    load = AutoTokenizer.from_pretrained
    tokenizer = load(tmp_path / "out", local_files_only=True, trust_remote_code=False)
    assert len(tokenizer) == corpus.vocabulary.size == meta["vocabulary"]["size"]
    assert load_vocabulary(tmp_path / "out") == corpus.vocabulary
    row = rows_of(tmp_path / "out")[0]
    text = tokenizer.decode(row["input_ids"][: row["segment_offsets"][1]])
    assert text.startswith(("[Text]", "[Speech]"))
    assert "data_files: data/*.parquet" in (tmp_path / "out/README.md").read_text()


def test_all_or_nothing(corpus: FinishedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "deep" / "out"
    export(corpus, out, seed=3, tokens=500, epochs=None)
    before = rows_of(out)
    with pytest.raises(SpiritLMError, match="is not empty: name a new folder, or .* --force"):
        export(corpus, out, seed=4)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(OSError, match="No space"):
            export(corpus, out, seed=4, force=True)
    assert rows_of(out) == before
    export(corpus, out, seed=4, tokens=500, epochs=None, force=True)
    assert rows_of(out) != before
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(SpiritLMError, match="something else than an exported corpus"):
        export(corpus, tmp_path / "mine", seed=3, force=True)
    with pytest.raises(SpiritLMError, match="is a file"):
        export(corpus, tmp_path / "mine/notes.txt", seed=3)


@pytest.mark.parametrize("stream", ["text", "speech", "interleaved"])
def test_a_preview_shows_every_token_with_its_word(corpus: FinishedCorpus, stream: str) -> None:
    text, vocabulary = TextTokenizer.load(corpus.tokenizer), corpus.vocabulary
    found = list(previews(corpus, stream=stream, count=20, seed=3))
    assert len({document.document for document in found}) > 5 - bool(corpus.text)
    for document in found:
        assert document.stream == stream
        ids = document.ids
        for span in document.spans:
            marker = vocabulary.speech_marker if span.modality == "speech" else vocabulary.text_marker
            assert ids[: len(span.ids) + 1] == [marker, *span.ids]
            ids = ids[len(span.ids) + 1 :]
            if not document.utterances:
                assert (span.text, span.words) == (text.decode(span.ids), [])
                continue
            assert [i for word in span.words for i in word.ids] == span.ids
            for word in span.words:
                if span.modality == "speech":
                    assert word.tokens == names(word.ids, vocabulary)
                else:
                    assert text.decode(word.ids).strip() == word.word
        assert ids == ([vocabulary.eos] if document.ends else [])
        said = " ".join(word.word for span in document.spans for word in span.words)
        assert all(part in " ".join(SENTENCES * 2) for part in said.split()) or not document.utterances
        assert json.dumps(document.to_dict())


def test_previews_come_in_the_order_of_training(corpus: FinishedCorpus) -> None:
    drawn = [document.ids for document in previews(corpus, stream="interleaved", count=8, seed=3)]
    packed = [row for row in training(corpus, 40) if "interleaved" in row.streams]
    first = [row.input_ids[row.document_ids == i].tolist() for row in packed[:40] for i in range(len(row.streams))]
    assert all(ids in first for ids in drawn[:4])
    later = [document.ids for document in previews(corpus, stream="interleaved", count=8, seed=3, epoch=1)]
    assert drawn != later


def test_a_long_word_is_shown_in_pieces(folders: dict[str, Path], tmp_path: Path) -> None:
    lake, recipe = small_lake(tmp_path, folders["gpt2"], texts=False)
    small = recipe.model_copy(update={"tokens": recipe.tokens.model_copy(update={"context_length": 16})})
    found = list(previews(opened(lake, small), stream="speech", count=50, seed=3))
    assert any(word.word == "…" for document in found for span in document.spans for word in span.words)


def test_a_missing_or_another_corpus_says_what_to_run(folders: dict[str, Path], tmp_path: Path) -> None:
    lake, recipe = small_lake(tmp_path / "lake", folders["gpt2"], texts=False)
    with pytest.raises(
        LakeError, match=r"no table `sequences` of recipe 'small' yet: `spiritlm run my.yaml --until corpus"
    ):
        opened(Lake(tmp_path / "none"), recipe, "my.yaml")
    with pytest.raises(LakeError, match="no table `text`"):
        opened(lake, load_config(Recipe, RECIPE + TEXTS, "x"))
    with pytest.raises(LakeError, match=r"other settings of tokens\.sequences"):
        opened(lake, load_config(Recipe, RECIPE.replace("style: 5}\n  context", "style: 6}\n  context"), "x"))
    assert isinstance(opened(lake, recipe).sequences.read(), pa.Table)


@pytest.mark.parametrize("stream", ["asr", "tts"])
def test_a_preview_of_examples_shows_question_and_answer(corpus: FinishedCorpus, stream: str) -> None:
    pairs = {"pairs": PairsConfig(crops=0, shots=2)}
    several = replace(corpus, config=corpus.config.model_copy(update={**pairs, "context_length": 2000}))
    found = list(previews(several, stream=stream, count=12, seed=3))
    assert {len(one.spans) for one in found} == {2, 4, 6}
    for one in found:
        assert one.stream == stream
        assert one.ends
        assert len(one.utterances) == len(one.spans) // 2
        for question, answer in zip(one.spans[::2], one.spans[1::2], strict=True):
            assert {question.modality, answer.modality} == {"text", "speech"}
            assert (question.modality == "speech") == (stream == "asr")
            text = question if stream == "tts" else answer
            assert text.text.split() == [word.word for word in question.words] == [word.word for word in answer.words]
