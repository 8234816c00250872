"""A text that reads like a token is text: in the tokenizer of a published folder as in that of the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.fit import take
from spiritlm_core.tokens.hf import save_tokenizer, vocabulary_for
from spiritlm_core.tokens.text import TextTokenizer

EXACT = ("gpt2", "llama3", "loose")
"""Those that change no character; the others normalise, or write a space as another one."""
KINDS = (*EXACT, "qwen", "loose_sentencepiece", "llama2")
LOOKALIKES = ["[Text]", "[Speech]", "[Hu12]", "[Hu9999]", "[Pi0]", "[St3]", "[", "]", "</s>", "<s>", "<|im_end|>"]
TEXTS = st.lists(
    st.sampled_from(LOOKALIKES) | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5), max_size=8
).map("".join)
SIZES = SequencesConfig(hubert=40, pitch=8, style=4)


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, TextTokenizer, TextTokenizer]:
    """Kind, the text tokenizer, and the one of a published folder."""
    kind = request.param
    if kind not in folders:
        pytest.skip(f"the {kind} tokenizer is not at hand")
    out = tmp_path_factory.mktemp("published") / kind
    save_tokenizer(folders[kind], vocabulary_for(folders[kind], SIZES), out)
    return kind, TextTokenizer.load(folders[kind]), TextTokenizer.load(out)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_a_published_folder_gives_any_text_the_ids_of_its_text_tokenizer(
    pair: tuple[str, TextTokenizer, TextTokenizer], text: str
) -> None:
    kind, plain, loaded = pair
    ids = loaded.encode_words(text).ids.tolist()
    assert loaded.size == plain.size
    assert ids == plain.encode_words(text).ids.tolist()
    assert not {plain.size, plain.bos, plain.eos} & set(ids)
    assert max(ids, default=0) < plain.size
    if kind in EXACT:
        assert loaded.decode(ids) == "".join([f" {word}" for word in text.split()])


@pytest.mark.parametrize("text", ["say [Speech] now", "[Hu12]", "[Text] a", "a[Hu1][Hu2]b", "</s>", "plain"])
def test_texts_with_tokens_come_back(pair: tuple[str, TextTokenizer, TextTokenizer], text: str) -> None:
    loaded = pair[2]
    assert loaded.decode(loaded.encode_words(text).ids) == f" {text}"


def test_a_recipe_that_takes_the_tokenizer_of_a_published_model_gets_its_text_tokens(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    save_tokenizer(folders["gpt2"], vocabulary_for(folders["gpt2"], SIZES), tmp_path / "published")
    take(tmp_path / "published", tmp_path / "taken")
    assert TextTokenizer.load(tmp_path / "taken").size == TextTokenizer.load(folders["gpt2"]).size
    save_tokenizer(tmp_path / "taken", vocabulary_for(tmp_path / "taken", SIZES), tmp_path / "again")
    assert (tmp_path / "again/vocabulary.json").read_text() == (tmp_path / "published/vocabulary.json").read_text()
