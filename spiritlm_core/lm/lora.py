"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: put in, merged, or saved on their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LmConfig, LoraConfig
from spiritlm_core.lm.model import CausalLM


def add_adapters(model: CausalLM, config: LoraConfig) -> None:
    """Put adapters into the linear layers of the blocks and freeze everything else, in place.

    Raises:
        SpiritLMError: the model has no layer of a name in ``config.targets``.
    """
    raise NotImplementedError


def merged(model: CausalLM, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the model without adapters that computes the same; `weights` as they are if it has none."""
    return weights


def save_adapters(
    model: CausalLM, weights: dict[str, torch.Tensor], config: LmConfig, dtype: torch.dtype, out: Path
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which peft loads on top of the base model."""
    raise NotImplementedError
