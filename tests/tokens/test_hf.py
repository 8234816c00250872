from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.hf import load_vocabulary, save_tokenizer, vocabulary_for
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

KINDS = ("gpt2", "llama3", "qwen", "loose_sentencepiece", "llama2")


@pytest.mark.parametrize("sizes", [SequencesConfig(), SequencesConfig(hubert=40, pitch=0, style=0)])
@pytest.mark.parametrize("kind", KINDS)
def test_auto_tokenizer_gives_the_ids_of_the_vocabulary(
    folders: dict[str, Path], kind: str, sizes: SequencesConfig, tmp_path: Path
) -> None:
    if kind not in folders:
        pytest.skip(f"the {kind} tokenizer is not at hand")
    from transformers import AutoTokenizer

    text = TextTokenizer.load(folders[kind])
    vocabulary = vocabulary_for(text, sizes)
    save_tokenizer(folders[kind], vocabulary, tmp_path)
    full = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    assert len(full) == vocabulary.size
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    wanted = [vocabulary.speech_marker, vocabulary.unit_id("Hu", 3), vocabulary.unit_id("Hu", 4)]
    assert full("[Speech][Hu3][Hu4]")["input_ids"] == start + wanted
    everything = list(range(vocabulary.text_size, vocabulary.size))
    assert full("".join(vocabulary.tokens), add_special_tokens=False)["input_ids"] == everything
    mixed = "[Text] and they[Speech][Hu3][Hu39][Text] press 12"
    ids = full(mixed, add_special_tokens=False)["input_ids"]
    assert ids[1 : ids.index(vocabulary.speech_marker)] == text.encode(" and they")
    assert full.decode(ids) == mixed == full.decode(ids, skip_special_tokens=True)
    assert full.eos_token_id == full.pad_token_id == vocabulary.eos
    padded = full(["[Text] a", "[Text] press one now"], padding=True, return_tensors="pt")
    assert set(padded) == {"input_ids", "attention_mask"}, "what a causal model takes"
    assert padded["attention_mask"][:, 0].tolist() == [0, 1]
    assert load_vocabulary(tmp_path) == vocabulary


def test_llama_2_gets_the_released_ids(folders: dict[str, Path], tmp_path: Path) -> None:
    if "llama2" not in folders:
        pytest.skip("the llama2 tokenizer is not at hand")
    save_tokenizer(folders["llama2"], vocabulary_for(folders["llama2"], SequencesConfig()), tmp_path)
    full = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert full.encode("[Text][Speech][Hu0][Hu500][Pi0][Pi63][St0][St99]").ids == [
        1, 32000, 32001, 32002, 32502, 32503, 32566, 32567, 32666,
    ]  # fmt: skip


def test_chat_templates_and_special_tokens_stay(folders: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "chat"
    shutil.copytree(folders["gpt2"], source)
    (source / "chat_template.jinja").write_text("<|im_start|>{{ messages[0]['content'] }}<|im_end|>")
    save_tokenizer(source, vocabulary_for(source, SequencesConfig()), tmp_path / "out")
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    text = full.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text == "<|im_start|>hi<|im_end|>"
    ids = full(text)["input_ids"]
    assert (ids[0], ids[-1]) == (1, full.eos_token_id)


@pytest.mark.parametrize(
    ("special", "pad"),
    [
        ({"pad_token": "<pad>", "unk_token": "<none>", "bos_token": {"content": "<none either>"}}, "<|im_end|>"),
        ({"pad_token": "<|endoftext|>"}, "<|im_end|>"),
        ({"eos_token": None, "unk_token": {"content": "<|endoftext|>"}}, "<|endoftext|>"),
        ({"eos_token": None}, None),
    ],
)
def test_a_token_that_pads_adds_no_id(
    folders: dict[str, Path], tmp_path: Path, special: dict[str, Any], pad: str | None
) -> None:
    from transformers import AutoTokenizer

    source = tmp_path / "source"
    shutil.copytree(folders["gpt2"], source)
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_input_names": ["token_type_ids"], **special}))
    vocabulary = vocabulary_for(source, SequencesConfig())
    save_tokenizer(source, vocabulary, tmp_path / "out")
    full = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert (len(full), full.pad_token, full.padding_side) == (vocabulary.size, pad, "left")
    assert set(full("[Text] a")) == {"input_ids", "attention_mask"}


def test_a_config_written_by_transformers_5_is_readable_to_4(folders: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "five"
    shutil.copytree(folders["gpt2"], source)
    config = json.loads((source / "tokenizer_config.json").read_text())
    config.update(tokenizer_class="TokenizersBackend", extra_special_tokens=["<|im_start|>"])
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    save_tokenizer(source, vocabulary_for(source, SequencesConfig()), tmp_path / "out")
    saved = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert "extra_special_tokens" not in saved
    assert saved["additional_special_tokens"] == ["<|im_start|>"]
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_vocabulary_of_another_tokenizer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SpiritLMError, match="but the vocabulary is for 32000"):
        save_tokenizer(folders["gpt2"], Vocabulary(32000), tmp_path)


def test_a_tokenizer_with_speech_tokens_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folders["gpt2"] / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("[Hu3]")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SpiritLMError, match="it has .*Hu3.* already"):
        save_tokenizer(tmp_path, vocabulary_for(tmp_path, SequencesConfig()), tmp_path / "out")


def test_a_changed_vocabulary_file_is_noticed(folders: dict[str, Path], tmp_path: Path) -> None:
    save_tokenizer(folders["gpt2"], vocabulary_for(folders["gpt2"], SequencesConfig()), tmp_path)
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hubert": 500}))
    with pytest.raises(ModelReferenceError, match="fingerprint"):
        load_vocabulary(tmp_path)
    path.write_text("{}")
    with pytest.raises(ModelReferenceError, match="not a vocabulary"):
        load_vocabulary(tmp_path)
