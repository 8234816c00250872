"""Arithmetic of the encoders: which numbers their matrix products are made of.

Sums, norms, softmax and the residual stream stay in float32 whatever the precision.

exact
    float32 results.
bf16
    Inputs of products rounded to bf16, on hardware that is fast at it: GPUs, and CPUs with bf16 tiles (Intel AMX).
    Elsewhere as `exact`.
"""

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


def convert_linears(module: nn.Module, kind: Kind) -> None:
    """Replace every `nn.Linear` below `module`; float32 stays as it is."""
    if kind == "fp32":
        return
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Affine(child.weight, child.bias, kind))
        else:
            convert_linears(child, kind)


class Affine(nn.Module):
    """``x @ weight.T + bias`` of float32 numbers, or of bf16 numbers, which the hardware sums in float32."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind) -> None:
        """`weight` is float[out, in], `bias` float[out]."""
        super().__init__()
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        self.register_buffer("weight", weight.detach().to(dtype).contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype))

    def prepared(self, x: torch.Tensor) -> torch.Tensor:
        """`x` in the type that the product takes; worth doing before windows of `x` are copied."""
        return x.to(self.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out], in the type of the product."""
        return linear(self.prepared(x), self.weight, self.bias)
