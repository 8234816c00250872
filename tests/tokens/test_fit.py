from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from spiritlm_core.align.stage import WORDS
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokenizerStageConfig
from spiritlm_core.tokens.fit import TokenizerFit, take
from spiritlm_core.tokens.text import TextTokenizer
from tests.tokens.tokenizers_for_tests import LINES, transcripts

ODD = ["naïve 😀👍 12,5€ z\u0301 aaaaaaaaaaaaa hahahahahaha oooooooo", "a  b   c ", "\x01 <s> </s> [Hu3]", "123 4567"]


def views(texts: list[str], shards: int = 1, shuffle: bool = False) -> dict[str, TableView]:
    """Audio and words tables; every tenth row is held out, and one is rejected."""
    order = np.random.default_rng(0).permutation(len(texts)).tolist() if shuffle else range(len(texts))
    audio: list[Row] = []
    words: list[Row] = []
    for i in order:
        key = f"u{i}"
        split = "held_out" if i % 10 == 9 else "train"
        audio.append({"utterance_id": key, "recording_id": key, "source_uri": "x", "split": split})
        words.append(
            {"utterance_id": key, "text": None, "reject_stage": "words"}
            if i == 3
            else {"utterance_id": key, "text": texts[i]}
        )
    parts = [slice(p[0], p[-1] + 1) for p in np.array_split(np.arange(len(texts)), shards)]
    return {
        "audio": TableView.of(*(table_of(audio[part], AUDIO) for part in parts)),
        "words": TableView.of(*(table_of(words[part], WORDS) for part in parts)),
    }


def fitted(tmp_path: Path, tables: dict[str, TableView], config: TokenizerStageConfig, name: str = "out") -> Path:
    out = tmp_path / name
    out.mkdir()
    summary = TokenizerFit(config, {}).build(tables, out, tmp_path, lambda fraction, message: None)
    assert json.dumps(summary)
    assert summary["text_tokens"] == TextTokenizer.load(out).size
    return out


def test_fast_ids_equal_those_of_sentencepiece(tmp_path: Path) -> None:
    texts = transcripts()
    out = fitted(tmp_path, views(texts), TokenizerStageConfig(vocab_size=1200))
    slow = sentencepiece.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
    fast = TextTokenizer.load(out)
    for text in [*texts, *(f" {text}" for text in texts), *ODD]:
        assert fast.encode(text) == slow.encode(text)
        assert fast.decode(fast.encode(text)) == text
        assert fast.encode_words(text).independent


def test_the_same_rows_give_the_same_tokenizer(tmp_path: Path) -> None:
    texts = transcripts()[:300]
    config = TokenizerStageConfig(vocab_size=600, max_lines=len(texts) // 2)
    one = fitted(tmp_path, views(texts), config, "one")
    other = fitted(tmp_path, views(texts, shards=7, shuffle=True), config, "other")
    third = fitted(
        tmp_path, views(texts), TokenizerStageConfig(vocab_size=600, max_lines=len(texts) // 2, seed=1), "third"
    )
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert (one / "tokenizer.json").read_bytes() != (third / "tokenizer.json").read_bytes()


def test_held_out_text_is_not_seen(tmp_path: Path) -> None:
    texts = [line.strip() for line in LINES]
    texts[9] = "þþþþ " * 50
    loaded = TextTokenizer.load(fitted(tmp_path, views(texts), TokenizerStageConfig(vocab_size=400)))
    assert len(loaded.encode("þ")) == 2  # two bytes, no piece of its own


def test_a_small_text_gives_a_smaller_vocabulary(tmp_path: Path) -> None:
    assert (
        TextTokenizer.load(fitted(tmp_path, views(["hello world"]), TokenizerStageConfig(vocab_size=50_000))).size < 400
    )


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpiritLMError, match="train split has no transcript"):
        fitted(tmp_path, views([" ", ""]), TokenizerStageConfig())
    many = "".join(chr(0x4E00 + i) for i in range(500))
    with pytest.raises(SpiritLMError, match="vocab_size"):
        fitted(tmp_path, views([many]), TokenizerStageConfig(vocab_size=320), "other")


def test_auto_tokenizer_loads_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    out = fitted(tmp_path, views(transcripts()[:100]), TokenizerStageConfig(vocab_size=500))
    auto = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    text = " and they said"
    assert auto(text)["input_ids"] == TextTokenizer.load(out).encode(text)
    assert auto.decode(auto(text)["input_ids"]) == text
    assert (auto.bos_token, auto.eos_token, auto.unk_token) == ("<s>", "</s>", "<unk>")


def test_a_base_tokenizer_is_taken_as_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    TokenizerFit(TokenizerStageConfig(base="file:///x"), {"base": folders["gpt2"]}).build(
        {}, out, tmp_path, lambda f, m: None
    )
    assert (out / "tokenizer.json").read_bytes() == (folders["gpt2"] / "tokenizer.json").read_bytes()


def test_a_base_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError):
        take(tmp_path, tmp_path / "out")


def write_gguf(path: Path, folder: Path) -> list[str]:
    """A GGUF file that holds a byte-level tokenizer, and what its loader asks for of a model."""
    import gguf

    model = json.loads((folder / "tokenizer.json").read_text())
    vocab = {**model["model"]["vocab"], **{token["content"]: token["id"] for token in model["added_tokens"]}}
    tokens = sorted(vocab, key=lambda token: vocab[token])
    special = {token["content"] for token in model["added_tokens"]}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(vocab["<|im_end|>"])
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tokens


def test_the_tokenizer_of_a_gguf_file(folders: dict[str, Path], tmp_path: Path) -> None:
    tokens = write_gguf(tmp_path / "model.gguf", folders["gpt2"])
    take(tmp_path / "model.gguf", tmp_path / "out")
    taken, source = TextTokenizer.load(tmp_path / "out"), TextTokenizer.load(folders["gpt2"])
    assert taken.size == len(tokens)
    assert (taken.bos, taken.eos) == (None, tokens.index("<|im_end|>"))
    for line in LINES:
        assert taken.encode(line) == source.encode(line)
        assert taken.decode(taken.encode(line)) == line
