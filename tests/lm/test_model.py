from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.model.network import build_model, count_parameters, load_pretrained, padded_rows, rope_base_of
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, KMeans
from spiritlm_core.speech.quantizers.quantizer import LINEAR_FILE, LinearQuantizer
from spiritlm_core.tokens.vocabulary import Vocabulary
from tests.support.small_model import TINY

VOCABULARY = Vocabulary(100, hubert=20, pitch=4, style=3, bos=1, eos=2)
CENTRES = "centres"
IDS = torch.tensor([[1, 5, 17, 99, 42, 3, 8]])


def base_model(rows: int, *, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    ).eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [100, 128])  # exactly its tokenizer's size, or padded already
@pytest.mark.parametrize("init", ["random", "mean"])
def test_warm_start_leaves_text_logits_as_they_were(tmp_path: Path, rows: int, tied: bool, init: str) -> None:
    base = base_model(rows, tied=tied)
    base.save_pretrained(tmp_path)
    config = LmConfig(base="file:///x", rope_base=None, new_token_init=init, vocabulary_multiple=64)
    model = build_model(config, VOCABULARY, context_length=256, base=tmp_path)
    assert model.get_input_embeddings().weight.shape[0] == padded_rows(VOCABULARY, 64) == 192
    assert model.get_output_embeddings().weight.shape[0] == model.config.vocab_size == 192
    torch.testing.assert_close(logits(model)[..., :100], logits(base)[..., :100], rtol=0, atol=1e-6)
    assert model.config.max_position_embeddings == 256
    assert model.config.eos_token_id == 2
    new = model.get_input_embeddings().weight[100:].detach()
    text = model.get_input_embeddings().weight[:100].detach()
    if init == "mean":
        torch.testing.assert_close(new[3], text.mean(dim=0))
    else:
        spread = float((new - text.mean(dim=0)).std() / text.std())  # close to the mean where it is the output, too
        assert 0.05 < spread < 0.2 if tied else 0.5 < spread < 2
        assert not torch.equal(new[0], new[1])


def centres_of(folder: Path, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = (rng.normal(3, 2, (count // 2, width)).repeat(2, axis=0) + rng.normal(0, 0.3, (count, width))).astype(
        "f4"
    )
    facts = {"layer": 1}
    KMeans(centres, np.zeros(width, np.float32), np.ones(width, np.float32), facts).save(folder / QUANTIZER_FILE)
    return (centres - centres.mean(axis=0)) / centres.std(axis=0)


def geometry(rows: np.ndarray) -> np.ndarray:
    """Products of all pairs of rows, which no turn and no length changes."""
    return rows @ rows.T / (rows**2).sum()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("warm", [True, False])
def test_rows_of_units_start_where_the_cluster_centres_lie(tmp_path: Path, warm: bool, tied: bool) -> None:
    """As far from each other, turned and scaled to the length of other rows; more features than the model is wide."""
    base_model(128, tied=tied).save_pretrained(tmp_path)
    shape = TINY.model_copy(update={"tied_embeddings": tied})
    config = LmConfig(base="file:///x" if warm else None, architecture=shape, new_token_init=CENTRES)
    base = tmp_path if warm else None
    narrow = centres_of(tmp_path, 18, 12)

    def rows(config: LmConfig, **given: Path) -> list[torch.Tensor]:
        model = build_model(config, VOCABULARY, context_length=64, base=base, **given)
        return [layer.weight.detach() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]

    tables = rows(config, quantizer=tmp_path)
    for table, spread in zip(tables, (0.1 if warm and tied else 1, 0.1 if warm else 1), strict=True):
        text, units = table[:100], table[102:120]
        off = (units - text.mean(dim=0)).numpy()
        np.testing.assert_allclose(geometry(off), geometry(narrow), atol=1e-6)
        length = (text - text.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        assert float(np.sqrt((off**2).sum(axis=1).mean())) == pytest.approx(spread * float(length), rel=1e-4)
    drawn = rows(config.model_copy(update={"new_token_init": "random"}))
    for table, other in zip(tables, drawn, strict=True):
        assert torch.equal(table[:102], other[:102])
        assert torch.equal(table[120:], other[120:]), "units that the quantizer lacks, pitch and style: as ever"
    assert torch.equal(rows(config, quantizer=tmp_path)[0], tables[0])
    assert not torch.equal(
        rows(config.model_copy(update={"seed": 1}), quantizer=tmp_path)[0][102:120], tables[0][102:120]
    )
    centres_of(tmp_path, 20, 300)
    turned = rows(config, quantizer=tmp_path)[0][102:122]
    near = torch.cdist(turned, turned).fill_diagonal_(torch.inf).argmin(dim=1).tolist()
    assert near == [unit ^ 1 for unit in range(20)], "units 0 and 1 sound alike, 2 and 3, and so on"
    with pytest.raises(SpiritLMError, match="centres needs the quantizer of the units"):
        rows(config)


def test_rows_of_units_start_from_the_weights_of_a_linear_quantizer(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shapes = ((8, 6), (8, 8), (21, 8))
    weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    biases = tuple(np.zeros(shape[0], np.float32) for shape in shapes)
    LinearQuantizer(weights, biases, {"layer": 1}).save(tmp_path / LINEAR_FILE)
    config = LmConfig(architecture=TINY, new_token_init=CENTRES)
    model = build_model(config, VOCABULARY, context_length=64, quantizer=tmp_path)
    units = model.get_input_embeddings().weight[102:122].detach().numpy()
    standardised = (weights[-1][:20] - weights[-1][:20].mean(axis=0)) / weights[-1][:20].std(axis=0)
    np.testing.assert_allclose(geometry(units - units.mean(axis=0)), geometry(standardised), atol=1e-6)


def test_rope_base_changes_and_survives_saving(tmp_path: Path) -> None:
    base_model(128, tied=True).save_pretrained(tmp_path / "base")
    config = LmConfig(base="file:///x", rope_base=100_000)
    model = build_model(config, VOCABULARY, context_length=128, base=tmp_path / "base")
    frequencies = model.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, 100_000.0 ** -(torch.arange(0, 8, 2) / 8))
    model.save_pretrained(tmp_path / "saved")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "saved")
    assert rope_base_of(again.config) == 100_000
    torch.testing.assert_close(logits(again), logits(model))
    untouched = build_model(
        config.model_copy(update={"rope_base": None}), VOCABULARY, context_length=64, base=tmp_path / "base"
    )
    assert not torch.allclose(logits(untouched), logits(model))


def test_fresh_llama_has_the_shape_asked_for_and_is_reproducible() -> None:
    config = LmConfig(architecture=TINY, vocabulary_multiple=64, seed=3)
    models = [build_model(config, VOCABULARY, context_length=64) for _ in range(2)]
    assert models[0].config.num_key_value_heads == 1
    assert models[0].config.vocab_size == 192
    assert torch.equal(logits(models[0]), logits(models[1]))
    other = build_model(config.model_copy(update={"seed": 4}), VOCABULARY, context_length=64)
    assert not torch.equal(logits(models[0]), logits(other))
    assert count_parameters(other) == sum(p.numel() for p in set(other.parameters()))


def test_unusable_bases_are_clear_errors(tmp_path: Path) -> None:
    config = LmConfig(base="file:///x")
    with pytest.raises(ModelReferenceError, match="neither"):
        build_model(config, VOCABULARY, context_length=64, base=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelReferenceError, match="config.json: not a readable"):
        build_model(config, VOCABULARY, context_length=64, base=tmp_path / "empty")
    base_model(64, tied=True).save_pretrained(tmp_path / "small")
    with pytest.raises(SpiritLMError, match="64 embedding rows"):
        build_model(config, VOCABULARY, context_length=64, base=tmp_path / "small")


def test_a_window_shorter_than_the_context_is_refused(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=100, num_key_value_heads=2, sliding_window=64, **shape)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    build_model(LmConfig(base="file:///x"), VOCABULARY, context_length=64, base=tmp_path)
    with pytest.raises(SpiritLMError, match="sees 64 tokens at a time: lower tokens.context_length 128"):
        build_model(LmConfig(base="file:///x"), VOCABULARY, context_length=128, base=tmp_path)


def test_gguf_file_gives_the_model_it_was_made_from(tmp_path: Path) -> None:
    base = base_model(128, tied=True)
    path = tmp_path / "tiny.gguf"
    write_gguf(base, path)
    model = build_model(LmConfig(base="file:///x", rope_base=None), VOCABULARY, context_length=64, base=path)
    torch.testing.assert_close(logits(model)[..., :100], logits(base)[..., :100], rtol=1e-4, atol=1e-5)


def test_a_base_with_missing_weights_is_an_error_not_a_random_model(tmp_path: Path) -> None:
    model = base_model(128, tied=True)
    weights = {name: value for name, value in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ModelReferenceError, match="lacks the weights.*layers.1.mlp"):
        build_model(LmConfig(base="file:///x"), VOCABULARY, context_length=64, base=tmp_path)


@pytest.mark.filterwarnings("error")
def test_a_folder_of_ours_with_more_weights_than_its_configuration_is_refused(tmp_path: Path) -> None:
    base_model(128, tied=True).save_pretrained(tmp_path)
    load_pretrained(tmp_path, exact=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ModelReferenceError, match=r"has the weights \['model.layers.1.*config.json does not have"):
        load_pretrained(tmp_path, exact=True)


def write_gguf(model: LlamaForCausalLM, path: Path) -> None:
    """The file that llama.cpp's converter would write, in float32."""
    import gguf

    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(float(rope_base_of(config) or 0))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = value.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:  # llama.cpp interleaves the two halves that RoPE rotates together
                array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
