"""Causal attention within documents that lie end to end in one row: no mask, no work across documents.

Registered with transformers as `DOCUMENTS`, for any model whose layers hand keyword arguments on to the attention.
On the CPU, documents of like length are padded on the right and share one call: a causal query never sees what
lies to its right, so padding needs no mask. On a GPU a variable-length kernel does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from spiritlm_core.cores import large_products, products_are_large

DOCUMENTS = "spiritlm_documents"
_ALIKE = 0.75  # documents that share a call are at least this long, as a share of the longest


@dataclass(frozen=True)
class Documents:
    """Where documents lie in a row of N tokens; made once for all layers."""

    offsets: torch.Tensor  # int32[D + 1], the first token of each document, then N
    longest: int  # tokens of the longest document
    groups: tuple[tuple[int, int], ...]  # (documents, length) of each group that shares a call. Empty on a GPU
    gather: torch.Tensor  # int64[G], token of each slot of all groups, one after the other; N in slots that pad
    scatter: torch.Tensor  # int64[N], slot of each token
    mask: Any = None  # that of flex attention, on a GPU without a variable-length kernel

    @classmethod
    def of(cls, document_ids: np.ndarray) -> Documents:
        """From int[N] ids that change where a document begins."""
        starts = np.flatnonzero(np.diff(document_ids, prepend=document_ids[0] - 1))
        offsets = np.append(starts, len(document_ids))
        lengths = np.diff(offsets)
        gather, groups = [], []
        for members in _alike(lengths):
            size = int(lengths[members].max())
            slots = np.arange(size)
            gather.append(np.where(slots < lengths[members, None], starts[members, None] + slots, len(document_ids)))
            groups.append((len(members), size))
        flat = np.concatenate([part.ravel() for part in gather])
        used = flat < len(document_ids)
        scatter = np.empty(len(document_ids), np.int64)
        scatter[flat[used]] = np.flatnonzero(used)
        return cls(
            offsets=torch.from_numpy(offsets.astype(np.int32)),
            longest=int(lengths.max()),
            groups=tuple(groups),
            gather=torch.from_numpy(flat.astype(np.int64)),
            scatter=torch.from_numpy(scatter),
        )

    def to(self, device: torch.device) -> Documents:
        """The bounds on `device`; a GPU needs no groups."""
        if device.type == "cpu":
            return self
        offsets, none = self.offsets.to(device, non_blocking=True), self.gather[:0]
        mask = None if _varlen_kernel() else block_mask(offsets)
        return Documents(offsets, self.longest, (), none, none, mask)

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that it sees."""
        lengths = self.offsets.diff().long()
        return int((lengths * (lengths + 1) // 2).sum())


def _alike(lengths: np.ndarray) -> list[np.ndarray]:
    """Groups of documents, longest first, of at least `_ALIKE` the length of the longest of their group."""
    order = np.argsort(-lengths, kind="stable")
    cuts, first = [], 0
    for at, length in enumerate(lengths[order].tolist()):
        if length < _ALIKE * lengths[order[first]] and lengths[order[first]] > 16:
            cuts.append(at)
            first = at
    return np.split(order, cuts)


class _Take(torch.autograd.Function):
    """Rows of `x` [n, …] in another order, zeros where the index is n; `back` is the inverse order.

    No row is taken twice, so that the gradient is taken the same way back, without a sum.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index, back)
        return _rows(x, index)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        _, back = ctx.saved_tensors
        return _rows(gradient, back), None, None


def _rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    outside = index >= len(x)
    taken = x.index_select(0, index.clamp(max=len(x) - 1))
    return taken.masked_fill_(outside.view(-1, *[1] * (x.ndim - 1)), 0) if bool(outside.any()) else taken


def documents_attention(
    module: nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 - part of the interface; the documents say it all
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    *,
    documents: Documents,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function of transformers' interface: float[1, heads, N, width] to float[1, N, heads, width].

    `key` and `value` may have fewer heads; `scaling` is width^-0.5 if not given. There is no dropout: the models
    trained here have none.
    """
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    attend = _flex if documents.mask is not None else _kernels
    return attend(q, k, v, scaling, documents)[None], None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _kernels(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, documents: Documents
) -> torch.Tensor:
    """The documents of every batch have other lengths: a compiler would start again each time."""
    return (_varlen if query.is_cuda else _on_cpu)(query, key, value, scaling, documents)


def _on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, documents: Documents
) -> torch.Tensor:
    """float[N, heads, width] each, to float[N, heads, width]."""
    whole = len(documents.groups) == 1 and documents.groups[0][0] == 1
    gather, scatter = documents.gather, documents.scatter
    take: Any = _Take.apply
    slots = [x if whole else take(x, gather, scatter) for x in (query, key, value)]
    sizes = [members * length for members, length in documents.groups]
    parts = zip(*(torch.split(x, sizes) for x in slots), strict=True)
    outputs = [_causal(q, k, v, shape, scaling) for (q, k, v), shape in zip(parts, documents.groups, strict=True)]
    return outputs[0] if whole else take(torch.cat(outputs), scatter, gather)


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: tuple[int, int], scaling: float | None
) -> torch.Tensor:
    """Attention in a group of `shape` (documents, length); float[slots, heads, width], one document after the other."""
    q, k, v = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
    copies = q.shape[1] // k.shape[1]
    if products_are_large():
        k, v = (x.repeat_interleave(copies, dim=1) if copies > 1 else x for x in (k, v))
        attend: Any = _SmallProducts.apply
        output = attend(q, k, v, scaling)
    else:
        output = nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=copies != 1
        )
    return output.transpose(1, 2).flatten(0, 1)


class _SmallProducts(torch.autograd.Function):
    """Causal attention in float32, there and back, by what multiplies small matrices fast: documents are short."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        attend: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - there is no other name
        with large_products(large=False):
            found = attend(query, key, value, 0.0, True, scale=scale)
        ctx.save_for_backward(query, key, value, *found)
        ctx.scale = scale
        output: torch.Tensor = found[0]
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        back: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001
        with large_products(large=False):
            return *back(gradient, *ctx.saved_tensors, 0.0, True, scale=ctx.scale), None


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, documents: Documents
) -> torch.Tensor:
    """The variable-length kernel that torch has from 2.10 on; it computes in half precision alone."""
    kernel = _varlen_kernel()
    if kernel is None:
        raise RuntimeError("this torch has no variable-length kernel, and the documents came without a mask")
    copies, width, dtype = query.shape[1] // key.shape[1], query.shape[-1], query.dtype
    half = dtype if dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    scale = 1.0 if scaling is None else scaling * width**0.5  # the first version of the kernel has a fixed scale
    k, v = (x.repeat_interleave(copies, dim=1).to(half) for x in (key, value))
    bounds = (documents.offsets, documents.offsets, documents.longest, documents.longest)
    return kernel((query * scale).to(half), k, v, *bounds).to(dtype)


@cache
def _varlen_kernel() -> Callable[..., torch.Tensor] | None:
    """``varlen_attn``, told to be causal: a flag in torch 2.10, a window later."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    causal: dict[str, Any] = (
        {"is_causal": True} if "is_causal" in signature(varlen_attn).parameters else {"window_size": (-1, 0)}
    )
    return lambda *arguments: varlen_attn(*arguments, **causal)


def _flex(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, documents: Documents
) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    attend, grouped = _flex_attention(query.is_cuda), k.shape[1] != q.shape[1]
    output: torch.Tensor = attend(q, k, v, block_mask=documents.mask, scale=scaling, enable_gqa=grouped)
    return output[0].transpose(0, 1)


@cache
def _flex_attention(compiled: bool) -> Any:
    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention


def block_mask(offsets: torch.Tensor) -> Any:
    """The mask of flex attention for documents with bounds `offsets`, int32[D + 1]."""
    count, device = int(offsets[-1]), offsets.device
    owner = torch.searchsorted(offsets, torch.arange(count, device=device, dtype=torch.int32), right=True)

    def visible(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q >= k) & (owner[q] == owner[k])

    return create_block_mask(visible, None, None, count, count, device=str(device))


def register() -> str:
    """Make `DOCUMENTS` known to transformers; returns it."""
    from transformers import AttentionInterface

    AttentionInterface.register(DOCUMENTS, documents_attention)
    return DOCUMENTS
