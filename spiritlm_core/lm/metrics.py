"""What one training step is reported as, and how much arithmetic it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from spiritlm_core.lm.model import CausalLM, count_parameters
from spiritlm_core.tokens.corpus import STREAMS

_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}
"""Dense bfloat16 peak of one device, from the vendor's data sheets."""


@dataclass(frozen=True)
class StepLosses:
    """Loss of one step over all ranks, in nats."""

    sums: torch.Tensor  # float64[len(STREAMS)]
    counts: torch.Tensor  # int64[len(STREAMS)]

    @property
    def mean(self) -> float:
        """Mean over all predicted tokens."""
        return float(self.sums.sum() / self.counts.sum())

    def per_stream(self) -> dict[str, float | None]:
        """``loss_text`` …; None for a stream without a token in this step."""
        pairs = zip(STREAMS, self.sums.tolist(), self.counts.tolist(), strict=True)
        return {f"loss_{stream}": total / count if count else None for stream, total, count in pairs}


def flops_per_token(model: CausalLM, length: int) -> float:
    """Arithmetic of one trained token: 6 per weight and 12·layers·width·length for attention (arXiv 2204.02311, B)."""
    config = model.config
    return float(6 * count_parameters(model) + 12 * config.num_hidden_layers * config.hidden_size * length)


def peak_flops(device: torch.device) -> float | None:
    """Peak of `device` in bfloat16, None where we do not know it."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_FLOPS.items() if key in name), None)


def speed(tokens: int, seconds: float, flops: float, peak: float | None, devices: int) -> dict[str, Any]:
    """Tokens per second, and model FLOP utilisation (MFU) where the device's peak is known."""
    rate = tokens / max(seconds, 1e-9)
    return {"tokens_per_second": rate, "mfu": rate * flops / (peak * devices) if peak else None}
