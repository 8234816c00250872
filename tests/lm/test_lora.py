"""Adapters: as good as nothing at first, the same merged or apart, and loadable by peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LoraConfig
from spiritlm_core.lm.model.lora import add_adapters, merged, save_adapters
from spiritlm_core.lm.model.network import load_pretrained

IDS = torch.tensor([[1, 5, 9, 340, 341, 342, 7]])


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=48, tie_word_embeddings=request.param, **shape
    )
    folder = tmp_path_factory.mktemp("base")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trained(base: Path, config: LoraConfig) -> Any:
    """A model with adapters after a few steps of training."""
    model = load_pretrained(base)
    add_adapters(model, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_adapters_change_nothing_at_first_and_train_alone(base: Path) -> None:
    before = logits(load_pretrained(base))
    model = load_pretrained(base)
    add_adapters(model, LoraConfig(rank=4))
    assert torch.equal(logits(model), before)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(names) == 2 * 7 * 2  # A and B of seven layers in two blocks
    assert all(".lora_" in name for name in names)


@pytest.mark.parametrize(
    "config", [LoraConfig(rank=4), LoraConfig(rank=2, alpha=3.0, targets=("q_proj", "down_proj")),
               LoraConfig(rank=4, train_embeddings=True)]
)  # fmt: skip
def test_merged_and_loaded_adapters_are_the_model(base: Path, config: LoraConfig, tmp_path: Path) -> None:
    from peft import PeftModel

    model = trained(base, config)
    wanted, weights = logits(model), dict(model.state_dict())
    assert (wanted - logits(load_pretrained(base))).abs().max() > 0.02
    plain = load_pretrained(base)
    whole = merged(model, weights)
    assert whole.keys() == plain.state_dict().keys()
    plain.load_state_dict(whole)
    torch.testing.assert_close(logits(plain), wanted, rtol=1e-4, atol=2e-5)
    save_adapters(model, weights, config, torch.float32, tmp_path)
    loaded = PeftModel.from_pretrained(load_pretrained(base), str(tmp_path))
    torch.testing.assert_close(logits(loaded), wanted, rtol=1e-5, atol=1e-6)


def test_merging_is_adding_the_scaled_product(base: Path) -> None:
    model = trained(base, LoraConfig(rank=4, alpha=8.0, targets=("v_proj",)))
    weights = dict(model.state_dict())
    name = "model.layers.1.self_attn.v_proj"
    product = weights[f"{name}.lora_B.default.weight"] @ weights[f"{name}.lora_A.default.weight"]
    expected = weights[f"{name}.base_layer.weight"] + 2.0 * product
    assert torch.equal(merged(model, weights)[f"{name}.weight"], expected)


def test_a_model_without_adapters_is_left_alone(base: Path) -> None:
    model = load_pretrained(base)
    weights = dict(model.state_dict())
    assert merged(model, weights) is weights


def test_a_misspelt_layer_is_an_error(base: Path) -> None:
    with pytest.raises(SpiritLMError, match=r"no layer 'qproj'; it has down_proj, gate_proj, .*or write all-linear"):
        add_adapters(load_pretrained(base), LoraConfig(targets=("q_proj", "qproj")))
