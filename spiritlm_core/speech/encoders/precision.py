"""Arithmetic of the encoders: which numbers their matrix products are made of.

Sums, norms, softmax and the residual stream stay in float32 whatever the precision.

exact
    float32 results.
bf16
    Inputs of products rounded to bf16, on hardware that is fast at it: GPUs, and CPUs with bf16 tiles (Intel AMX).
    Elsewhere as `exact`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import linear

from spiritlm_core.cores import has_amx
from spiritlm_core.speech.settings import ExtractionPrecision

Precision = ExtractionPrecision
Kind = Literal["fp32", "bf16"]  # how a precision is computed on a machine


def kind_of(precision: Precision, device: str) -> Kind:
    """How `precision` is best computed on this machine."""
    return "bf16" if precision == "bf16" and (not device.startswith("cpu") or has_amx()) else "fp32"


def affine(weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind) -> Affine:
    """``x @ weight.T + bias`` as a module; `weight` float[out, in], `bias` float[out]."""
    made = Bf16Affine if kind == "bf16" else Affine
    return made(weight.detach().float(), None if bias is None else bias.detach().float())


def convert_linears(module: nn.Module, kind: Kind) -> None:
    """Replace every `nn.Linear` below `module`; float32 stays as it is."""
    if kind == "fp32":
        return
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, affine(child.weight, child.bias, kind))
        else:
            convert_linears(child, kind)


class Affine(nn.Module):
    """An affine map in float32: [..., in] to [..., out]."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", bias)

    def prepared(self, x: torch.Tensor) -> torch.Tensor:
        """`x` in the type that the product takes; worth doing before windows of `x` are copied."""
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32[..., in] to float32[..., out]."""
        return linear(x, self.weight, self.bias)


class Bf16Affine(Affine):
    """An affine map of bf16 numbers, which the hardware sums in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16))

    def prepared(self, x: torch.Tensor) -> torch.Tensor:
        """`x` as bf16."""
        return x.to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 or bf16[..., in] to bf16[..., out]."""
        return linear(x.to(torch.bfloat16), self.weight, self.bias)
