"""Arithmetic of the encoders: which numbers their matrix products are made of.

Sums, norms, softmax and the residual stream stay in float32 whatever the precision.

exact
    float32 results. A CPU with bf16 tiles (Intel AMX) computes each product as three of bf16 numbers, ``x = hi + lo``
    and ``w = hi + lo`` without ``lo lo``, which errs by about 2^-17, as little as float32 sums in another order do.
bf16
    Inputs of products rounded to bf16, on hardware that is fast at it; elsewhere as `exact`.
int8
    Inputs of products rounded to 8 bits, on CPUs only. Fast on CPUs with VNNI, and too coarse for some models:
    measure how many units stay the same (``benchmarks/units.py``) before using it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import linear

from spiritlm_core.errors import RecipeError
from spiritlm_core.speech.settings import ExtractionPrecision

Precision = ExtractionPrecision
Kind = Literal["fp32", "bf16x3", "bf16", "int8"]
"""How a precision is computed on a machine."""


def kind_of(precision: Precision, device: str) -> Kind:
    """How `precision` is best computed on this machine.

    Raises:
        RecipeError: int8 is asked for on a GPU or on a CPU without 8-bit kernels.
    """
    on_cpu = device.startswith("cpu")
    if precision == "int8":
        if not (on_cpu and _has_int8()):
            raise RecipeError(f"units.precision is int8, which torch has no kernels for on this {device}: use bf16")
        return "int8"
    if precision == "bf16" and (not on_cpu or has_amx()):
        return "bf16"
    return "bf16x3" if on_cpu and has_amx() and _three_products_pay() else "fp32"


def has_amx() -> bool:
    """Whether this CPU multiplies bf16 matrices in tiles (Intel AMX)."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


def _has_int8() -> bool:
    engines = getattr(getattr(torch.backends, "quantized", None), "supported_engines", ())
    return "x86" in engines and hasattr(torch.ops.quantized, "linear_dynamic")


@cache
def _three_products_pay() -> bool:
    """Race both ways to an exact product once per process; either result is right."""
    x, weight = torch.ones(1000, 768), torch.ones(3072, 768)
    seconds = []
    with torch.inference_mode():
        for product in (Affine(weight, None), Bf16x3Affine(weight, None)):
            product(x)
            began = time.perf_counter()
            product(x)
            product(x)
            seconds.append(time.perf_counter() - began)
    return seconds[1] < seconds[0]


def affine(weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind) -> Affine:
    """``x @ weight.T + bias`` as a module; `weight` float[out, in], `bias` float[out]."""
    kinds: dict[Kind, type[Affine]] = {"fp32": Affine, "bf16x3": Bf16x3Affine, "bf16": Bf16Affine, "int8": Int8Affine}
    return kinds[kind](weight.detach().float(), None if bias is None else bias.detach().float())


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

    def add_to(self, total: torch.Tensor, x: torch.Tensor) -> None:
        """Add ``x @ weight.T`` to float32[N, out] in place, for `x` float32[N, in] in any strides."""
        total.addmm_(x, self.weight.T)


class Bf16x3Affine(Affine):
    """An affine map in float32, out of three products of bf16 numbers summed in float32."""

    low: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(_high(weight), bias)
        self.register_buffer("low", weight - _high(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32[..., in] to float32[..., out]."""
        rows = x.reshape(-1, x.shape[-1])
        zeros = x.new_zeros(1) if self.bias is None else self.bias
        total = zeros.expand(len(rows), len(self.weight)).clone()
        self.add_to(total, rows)
        return total.reshape(*x.shape[:-1], -1)

    def add_to(self, total: torch.Tensor, x: torch.Tensor) -> None:
        """Add ``x @ weight.T`` to float32[N, out] in place."""
        high = _high(x)
        with _bf16_products():
            total.addmm_(x - high, self.weight.T)
            total.addmm_(high, self.low.T)
            total.addmm_(high, self.weight.T)


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


class Int8Affine(Affine):
    """Weights in 8 bits with one scale per output, inputs in 8 bits with one scale per row.

    The kernel knows one scale per call, so rows are brought to the range of -1 to 1 first: a frame of silence keeps
    its digits beside a loud one.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        nn.Module.__init__(self)
        scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12).double()
        zeros = torch.zeros(len(weight), dtype=torch.long)
        quantized = torch.quantize_per_channel(weight.contiguous(), scale, zeros, axis=0, dtype=torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if bias is None else bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32[..., in] to float32[..., out]."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
        output = torch.ops.quantized.linear_dynamic(x / largest, self._packed, reduce_range=False)
        return torch.addcmul(self.bias, output, largest)  # type: ignore[arg-type]


def _high(x: torch.Tensor) -> torch.Tensor:
    """float32 numbers cut to what bf16 holds of them."""
    return x.to(torch.bfloat16).float()


@contextmanager
def _bf16_products() -> Iterator[None]:
    """Let products of float32 matrices be computed of their bf16 roundings, summed and returned in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
