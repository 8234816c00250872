"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: put in, merged, or saved on their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LoraConfig
from spiritlm_core.lm.model.network import CausalLM

if TYPE_CHECKING:
    from peft import LoraConfig as PeftConfig
    from peft.tuners.lora import LoraLayer

_ADAPTER = "default"
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
"""What compilation, activation checkpointing and FSDP put into the names of modules, but not into those of weights."""


def add_adapters(model: CausalLM, config: LoraConfig) -> None:
    """Put adapters into the linear layers of the blocks and freeze everything else, in place.

    The model stays an ordinary model of transformers, and computes what it did: B starts at zero (section 4.1). Raises
    SpiritLMError: the model has no layer of a name in ``config.targets``.
    """
    from peft import inject_adapter_in_model

    _check_targets(model, config)
    try:
        inject_adapter_in_model(_peft_config(model, config), model, _ADAPTER)
    except ValueError as error:
        raise SpiritLMError(f"lm.lora.targets: no adapters fit into this {type(model).__name__}: {error}") from error
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.weight.requires_grad_(config.train_embeddings)


def merged(model: CausalLM, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the model without adapters that computes the same; `weights` as they are if it has none.

    `weights` are all of the model's, whole; its own may be spread over ranks.
    """
    layers = _layers(model)
    if not layers:
        return weights
    whole: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        owner, _, leaf = name.rpartition(".base_layer.")
        if leaf == "weight" and owner in layers:
            whole[f"{owner}.weight"] = value + _delta(layers[owner], owner, weights).to(value.dtype)
        elif ".lora_" not in name:
            whole[name.replace(".base_layer.", ".")] = value
    return whole


def save_adapters(
    model: CausalLM, weights: dict[str, torch.Tensor], config: LoraConfig, dtype: torch.dtype, out: Path
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which peft loads on top of the base model.

    Embeddings that were trained are in the file, too, in full.
    """
    kept = {name: value for name, value in weights.items() if ".lora_" in name}
    if config.train_embeddings:
        kept |= {name: weights[name] for name in _embedding_names(model) if name in weights}
    peft_names = {f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": value for name, value in kept.items()}
    out.mkdir(parents=True, exist_ok=True)
    saved = {name: value.to(dtype).contiguous().clone() for name, value in peft_names.items()}
    save_file(saved, out / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = _peft_config(model, config)
    settings.inference_mode = True
    settings.save_pretrained(str(out))


def _peft_config(model: CausalLM, config: LoraConfig) -> PeftConfig:
    from peft import LoraConfig as PeftConfig
    from peft import TaskType

    targets: Any = config.targets if isinstance(config.targets, str) else list(config.targets)
    return PeftConfig(
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=model.name_or_path or None,
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft says int and divides by the rank
        lora_dropout=config.dropout,
        target_modules=targets,
    )


def _check_targets(model: CausalLM, config: LoraConfig) -> None:
    """Of several names, peft wants one that fits; a misspelt one would go unnoticed."""
    if isinstance(config.targets, str):
        return
    have = {name for name, module in model.named_modules() if isinstance(getattr(module, "weight", None), torch.Tensor)}
    for target in config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in have):
            inner = sorted({name.rpartition(".")[2] for name in have if name.rpartition(".")[2].endswith("proj")})
            raise SpiritLMError(
                f"lm.lora.targets: this {type(model).__name__} has no layer {target!r}; it has "
                f"{', '.join(inner) or 'none whose name ends in proj'}, or write all-linear"
            )


def _layers(model: CausalLM) -> dict[str, LoraLayer]:
    """The layers with adapters by their names in a state dict."""
    layers: dict[str, Any] = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):  # runs without adapters do not load peft
            for wrapper in _WRAPPERS:
                name = name.replace(wrapper, "")  # noqa: PLW2901
            layers[name] = module
    return layers


def _delta(layer: LoraLayer, owner: str, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the adapter of a layer adds to its weight, scaling times B A (equation 3), in float32 at least."""
    down, up = (weights[f"{owner}.lora_{side}.{_ADAPTER}.weight"].float() for side in "AB")
    product: torch.Tensor = (up @ down) * layer.scaling[_ADAPTER]
    return product.T if getattr(layer, "fan_in_fan_out", False) else product


def _embedding_names(model: CausalLM) -> list[str]:
    """Names in a state dict of the input embedding and the output layer; the same tensor may have both."""
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is table for table in tables)]
    for wrapper in _WRAPPERS:
        names = [name.replace(wrapper, "") for name in names]
    return [f"{name}.weight" for name in names]
