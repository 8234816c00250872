"""Models as .gguf files, run by llama.cpp itself (the package cyllama) beside transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from typer.testing import CliRunner

from spiritlm_core.cli.app import app
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.export.gguf import _LLAMA_3, Quantization, export_gguf
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.hf import save_tokenizer, vocabulary_for
from tests.lm import corpora
from tests.support.limits import no_file_larger
from tests.support.llama_cpp import LlamaCpp

TEXTS = ("it's 25 cafés, naïve; don't press 1!", " to hear   the\nnumber 7", "[Text] yes [Hu3] no", "ß 你好 </s")


@pytest.fixture(scope="module", params=["sentencepiece", "gpt2", "smollm2", "llama3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpiritLM:
    """A Llama with random weights, untied where it is of the Llama 3 kind, behind each kind of tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    text = folder / "text"
    if request.param == "sentencepiece":
        corpora.tokenizer(corpora.sentences(200), text)
    else:
        byte_level(text, request.param)
    vocabulary = vocabulary_for(text, SequencesConfig(hubert=50, pitch=4, style=3))
    save_tokenizer(text, vocabulary, folder)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config: Any = LlamaConfig(
        vocab_size=vocabulary.size + 7, hidden_size=64, intermediate_size=96, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=request.param != "llama3",
        max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    network: Any = LlamaForCausalLM(config)
    network.save_pretrained(folder)
    return SpiritLM.from_pretrained(folder, "cpu")


def byte_level(out: Path, kind: str) -> None:
    """A byte-level BPE that parts texts as the models of this name do."""
    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "llama3")
    first = {
        "smollm2": pre_tokenizers.Digits(individual_digits=True),
        "llama3": pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"),
    }.get(kind)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, plain]) if first else plain
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f" {line}" for line in corpora.sentences(200)], trainer)
    out.mkdir()
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"eos_token": special[0]}))


def folder_of(model: SpiritLM) -> Path:
    return Path(model.model.config._name_or_path)


def greedy(network: Any, prompt: list[int], count: int, rows: int) -> list[int]:
    """What transformers finds likeliest, rows that pad the embedding left out."""
    ids, past, new = torch.tensor([prompt]), None, []
    for _ in range(count):
        with torch.inference_mode():
            found = network(ids, past_key_values=past, use_cache=True)
        past, ids = found.past_key_values, found.logits[:, -1:, :rows].argmax(-1)
        new.append(int(ids))
    return new


def test_llama_cpp_reads_and_answers_as_transformers_does(model: SpiritLM, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    assert export_gguf(folder_of(model), file, "f32") == file.stat().st_size
    runtime, rng = LlamaCpp(file), np.random.default_rng(0)
    for text in TEXTS:
        assert runtime.ids(text) == model.layout.encode(text), text
    for sentence in corpora.sentences(20, seed=5):
        prompt = runtime.ids(f" {sentence}[Speech][Pi1][Hu{rng.integers(50)}]")
        assert runtime.greedy(prompt, 24) == greedy(model.model, prompt, 24, model.vocabulary.size)


def test_fewer_bits_give_smaller_files_whose_answers_agree_less(published: Path, tmp_path: Path) -> None:
    model, least, sizes = SpiritLM.from_pretrained(published, "cpu"), {"f16": 1, "q8_0": 0.9, "q4_k_m": 0.35}, []
    for kind, share in least.items():
        file = tmp_path / f"{kind}.gguf"
        arguments = ["export", "gguf", str(published), "--quantize", kind, "--out", str(file), "--json"]
        shown = CliRunner().invoke(app, arguments)
        assert shown.exit_code == 0, shown.output
        sizes.append(json.loads(shown.stdout.splitlines()[-1])["bytes"])
        runtime, same = LlamaCpp(file), []
        for sentence in corpora.sentences(20, seed=5):
            prompt = runtime.ids(f" {sentence}[Speech]")
            answer = greedy(model.model, prompt, 8, model.vocabulary.size)
            same += [a == b for a, b in zip(runtime.greedy(prompt, 8), answer, strict=True)]
        assert np.mean(same) >= share, kind
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_k_m"])
def test_a_disk_without_room_is_named_and_nothing_is_left_on_it(
    published: Path, tmp_path: Path, kind: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(SpiritLMError, match=rf"m.gguf cannot be .+ MB are free in {tmp_path}\)"),
        no_file_larger(20_000),
    ):
        export_gguf(published, tmp_path / "m.gguf", kind)
    monkeypatch.setattr("spiritlm_core.export.gguf._write", lambda *given: given[3].write_bytes(b"no model"))
    if kind == "q4_k_m":
        with pytest.raises(SpiritLMError, match=rf"llama.cpp could not quantize .+ MB are free in {tmp_path}\)"):
            export_gguf(published, tmp_path / "m.gguf", kind)
    assert not list(tmp_path.iterdir())


def test_what_llama_cpp_cannot_run_is_refused(published: Path, tmp_path: Path) -> None:
    changes = {"scaled": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "mistral": {"model_type": "mistral"}}
    for reason, change in changes.items():
        other = Path(shutil.copytree(published, tmp_path / reason))
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelReferenceError, match=reason):
            export_gguf(other, tmp_path / "no.gguf")
    values = json.loads((published / "tokenizer.json").read_text())
    values["model"] |= {"byte_fallback": False}
    strange = Path(shutil.copytree(published, tmp_path / "strange"))
    (strange / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ModelReferenceError, match="knows no tokenizer"):
        export_gguf(strange, tmp_path / "no.gguf")
    assert not list(tmp_path.glob("*.gguf"))
