from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.tokens.text import TextTokenizer
from tests.tokens.tokenizers_for_tests import LINES, transcripts

STRICT = ("gpt2", "llama3", "qwen", "llama2", "unigram")
LOOSE = ("loose", "loose_sentencepiece")
COMMON = sorted({word for line in LINES for word in line.split()})
WORDS = st.lists(
    st.sampled_from(COMMON)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=6).filter(
        lambda word: not any(c.isspace() for c in word)
    ),
    min_size=1,
    max_size=20,
)

_loaded: dict[Path, TextTokenizer] = {}


def tokenizer(folders: dict[str, Path], kind: str) -> TextTokenizer:
    if kind not in folders:
        pytest.skip(f"the {kind} tokenizer is not at hand")
    path = folders[kind]
    if path not in _loaded:
        _loaded[path] = TextTokenizer.load(path)
    return _loaded[path]


def check(loaded: TextTokenizer, words: list[str]) -> bool:
    """The promises that hold for every tokenizer; returns whether the words are independent."""
    found = loaded.encode_words(words)
    text = "".join(f" {word}" for word in words)
    assert found.ids.tolist() == loaded.encode(text)
    assert len(found.offsets) == len(words) + 1 == len(found.can_switch) + 1
    assert found.offsets[0] == 0
    assert found.offsets[-1] == len(found.ids)
    assert (np.diff(found.offsets) >= 0).all()
    assert found.can_switch[0]
    return found.independent


@pytest.mark.parametrize("kind", STRICT)
def test_words_of_real_transcripts_are_tokenized_independently(folders: dict[str, Path], kind: str) -> None:
    loaded = tokenizer(folders, kind)
    for text in [*transcripts(), *LINES]:
        assert check(loaded, text.split())
    ids = loaded.encode(" and they")
    assert loaded.decode(ids) == " and they"


@pytest.mark.parametrize("kind", [*STRICT, *LOOSE])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS)
def test_ids_of_the_words_joined_are_those_of_the_text(folders: dict[str, Path], kind: str, words: list[str]) -> None:
    loaded = tokenizer(folders, kind)
    check(loaded, words)
    found = loaded.encode_words(words)
    if kind not in ("unigram", "qwen"):  # these normalise, or have no token for a character
        assert loaded.decode(found.ids) == "".join(f" {word}" for word in words)
    if kind in LOOSE:
        for i, cut in enumerate(found.offsets[:-1]):  # a switch is allowed exactly where the text falls apart cleanly
            clean = loaded.decode(found.ids[:cut]) == "".join(f" {word}" for word in words[:i])
            assert found.can_switch[i] == clean


@pytest.mark.parametrize("kind", LOOSE)
def test_no_switch_inside_a_token_that_reaches_over_a_space(folders: dict[str, Path], kind: str) -> None:
    loaded = tokenizer(folders, kind)
    found = loaded.encode_words("the lazy dog and the cat sat on the mat of the dog")
    assert not found.independent
    assert not found.can_switch.all()
    counts = np.diff(found.offsets)
    assert (counts == 0).any()  # words whose token belongs to their neighbour
    assert not found.can_switch[counts == 0].any()


def test_special_tokens_in_a_transcript_are_text(folders: dict[str, Path]) -> None:
    loaded = tokenizer(folders, "gpt2")
    assert loaded.eos is not None
    ids = loaded.encode(" <|im_end|> <|endoftext|>")
    assert not {loaded.eos, 0, 1} & set(ids)
    assert loaded.decode(ids) == " <|im_end|> <|endoftext|>"


def test_llama_2_knows_its_bos_and_encodes_without_a_prefix(folders: dict[str, Path]) -> None:
    loaded = tokenizer(folders, "llama2")
    assert (loaded.size, loaded.bos, loaded.eos) == (32000, 1, 2)
    assert loaded.encode("hello") == [12199]  # "▁hello" is 22172
    assert loaded.encode(" and they") == [322, 896]


def test_no_words_no_tokens(folders: dict[str, Path]) -> None:
    found = tokenizer(folders, "gpt2").encode_words("  ")
    assert (found.ids.tolist(), found.offsets.tolist(), found.can_switch.tolist()) == ([], [0], [])


def test_folders_without_a_usable_tokenizer_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError, match=r"no tokenizer\.json"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelReferenceError, match=r"tokenizer\.json"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelReferenceError, match="not a readable JSON"):
        TextTokenizer.load(tmp_path)
