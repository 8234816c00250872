"""What generators and the duration predictor share."""

from __future__ import annotations

import torch
from torch import nn


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """A convolution that keeps the length."""
    return nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel // 2))


def within(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """`x`, float[B, C, T], with zeros from `lengths` on."""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
    return x * inside[:, None]
