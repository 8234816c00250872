"""Texts in spoken form: one form in the fit of the tokenizer, in its tables, and in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.align.stage import WORDS
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.config import FrozenConfig
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.formats import WordFormat
from spiritlm_core.tokens.config import SequencesConfig, TokenizerConfig, TokenizerStageConfig
from spiritlm_core.tokens.fit import TokenizerFit, chosen_lines
from spiritlm_core.tokens.hf import load_vocabulary, save_tokenizer, vocabulary_for
from spiritlm_core.tokens.stage import word_by_word
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.text_stage import DOCUMENTS, TextStage
from spiritlm_core.tokens.words import spoken_text

TEXTS = ["Press 2.", "Dial 25 [beep], then #.", "It’s “OK” -- isn't it?", "The 1st of May, 1999: $5.50!"]  # noqa: RUF001
SPOKEN = TokenizerStageConfig(vocab_size=400, text="spoken")
ODD = "aB1290 .,'’-<>[](){}&%$€#+=½²ßİ´`\u0301㎏"  # noqa: RUF001


def fitted(folder: Path, config: TokenizerStageConfig = SPOKEN, **models: Path) -> Path:
    folder.mkdir()
    audio = [{"utterance_id": f"u{i}", "recording_id": "r", "source_uri": "x", "split": "train"} for i in range(4)]
    words = [{"utterance_id": f"u{i}", "text": text} for i, text in enumerate(TEXTS)]
    views = {"audio": TableView.of(table_of(audio, AUDIO)), "words": TableView.of(table_of(words, WORDS))}
    if config.base is None:
        assert "".join(chosen_lines(views, config)).isascii()  # typographic quotes are gone
    TokenizerFit(config, models).build(views, folder, folder, lambda *_: None)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("spoken") / "tokenizer")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Press 2.", "press two"),
        (TEXTS[1], "dial twenty five then pound"),
        (TEXTS[2], "it's ok isn't it"),
        ("...", ""),
    ],
)
def test_the_spoken_form_has_words_alone(text: str, said: str) -> None:
    assert spoken_text(text, "en") == said


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet=ODD), st.sampled_from(["en", "de", "fr", "xx"]))
def test_the_spoken_form_of_a_spoken_form_is_itself(text: str, language: str) -> None:
    said = spoken_text(text, language)
    assert spoken_text(said, language) == said == " ".join(said.split())


def row(text: str, tokenizer: TextTokenizer) -> dict[str, object]:
    """The token columns of a recording with `text`: a word a second, ten speech tokens a word."""
    words = text.split()
    timed = [{"word": word, "start": float(i), "interpolated": False} for i, word in enumerate(words)]
    count = 10 * len(words)
    found = word_by_word(timed, np.arange(count, dtype=np.int32), np.arange(count) / 10, tokenizer, SequencesConfig())
    assert found is not None
    return found


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.sampled_from([*" ".join(TEXTS).replace("[beep],", "").split(), "--", "42nd"]), min_size=1))
def test_a_text_has_the_same_tokens_in_the_table_and_in_use(tokenizer: Path, words: list[str]) -> None:
    loaded, text = TextTokenizer.load(tokenizer), " ".join(words)
    if not spoken_text(text, "en"):
        return
    found, ids = row(text, loaded), loaded.encode_words(text).ids.tolist()
    assert list(found["text_ids"]) == ids == loaded.encode(f" {text}")  # type: ignore[call-overload]
    assert loaded.encode_words(found["words"]).ids.tolist() == ids  # type: ignore[arg-type]
    assert loaded.decode(ids) == f" {spoken_text(text, 'en')}" == f" {found['text']}"


def test_a_word_that_is_several_when_spoken_keeps_its_slot_undivided(tokenizer: Path) -> None:
    found = row("Dial 25 now", TextTokenizer.load(tokenizer))
    assert found["words"] == ["dial", "twenty five", "now"]
    assert found["speech_offsets"].tolist() == [0, 10, 20, 30]  # type: ignore[attr-defined]
    assert found["can_switch"].tolist() == [True, True, True]  # type: ignore[attr-defined]


def test_tokens_that_reach_over_words_still_go_to_their_spoken_words(folders: dict[str, Path], tmp_path: Path) -> None:
    base = TokenizerStageConfig(base="file:///x", text="spoken")
    loaded = TextTokenizer.load(fitted(tmp_path / "loose", base, base=folders["loose"]))
    words = loaded.encode_words(["It", "is", "--", "25", "and", "more", "--"])
    assert words.words == ["it", "is", "", "twenty five", "and", "more", ""]
    assert words.ids.tolist() == loaded.encode(" It is -- 25 and more --")
    counts = np.diff(words.offsets)
    assert counts[2] == counts[-1] == 0
    assert counts.sum() == len(words.ids)


def test_documents_keep_their_lines_in_spoken_form(tokenizer: Path) -> None:
    rows = [{"document_id": "d", "split": "train", "text": "Press 2.\n---\n\nThen, #!", "source_uri": "x"}]
    documents = table_of(rows, DOCUMENTS).select(list(TextStage.inputs[0].columns or ()))
    (found,) = TextStage(FrozenConfig(), {"tokenizer": tokenizer}).process(documents).to_pylist()
    assert found["text"] == " press two\n\n then pound"
    assert TextTokenizer.load(tokenizer).decode(found["text_ids"]) == found["text"]


def test_a_published_folder_and_a_recipe_that_takes_it_know_the_form(tokenizer: Path, tmp_path: Path) -> None:
    text = TextTokenizer.load(tokenizer)
    vocabulary = vocabulary_for(text, SequencesConfig())
    save_tokenizer(tokenizer, vocabulary, tmp_path)
    layout = WordFormat(TextTokenizer.load(tmp_path), load_vocabulary(tmp_path))
    ids = text.encode_words("press two").ids.tolist()
    assert layout.prompt([("text", "Press 2.")], "speech")[-len(ids) - 1 :] == [*ids, vocabulary.speech_marker]
    assert layout.encode("[Text] Press 2. [Speech]") == layout.prompt([("text", "press two")], "speech")
    assert layout.known("Press 2.") == "press two"
    taken = TextTokenizer.load(fitted(tmp_path / "taken", TokenizerStageConfig(base="file:///x"), base=tmp_path))
    assert taken.encode_words("Press 2.").ids.tolist() == ids


def test_keys_of_tokenizers_that_take_texts_as_given_stay() -> None:
    assert TokenizerStageConfig(language="de").key() == TokenizerConfig().key()
    assert not TokenizerConfig().key().keys() & {"text", "language"}
    assert TokenizerStageConfig(base="file:///x", language="de").key() == TokenizerConfig(base="file:///y").key()
    keys = [TokenizerStageConfig(base=base, text="spoken", language="de").key() for base in (None, "file:///x")]
    assert [(key["text"], key["language"]) for key in keys] == [("spoken", "de")] * 2
