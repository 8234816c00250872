"""Output layer and cross-entropy in one, a few hundred positions at a time.

The logits of a training step are by far its largest tensor: 4096 positions of a vocabulary of 50k take 800 MB, and as
much again for their gradient. Here no more than a chunk of them exists at once. Since the loss is a weighted sum over
positions, its gradient is known as soon as the logits are, and the forward pass computes it from the same chunk; the
backward pass only scales it (the idea of Cut Cross-Entropy, arXiv 2411.09009, and of Liger, arXiv 2410.10989).
"""

from typing import Any

import torch
from torch import nn

CHUNK_BYTES = 1 << 24
"""Size of a chunk of float32 logits on a CPU, so that it stays in the cache; GPUs get 32 times as much."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float, training: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = torch.get_autocast_dtype(hidden.device.type) if _autocast(hidden) else hidden.dtype
        rows, table = hidden.to(dtype), weight.to(dtype)
        nats = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad
        d_hidden = torch.empty_like(rows) if training and wanted[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if training and wanted[1] else None
        size = chunk_rows(len(table), hidden.device)
        for first in range(0, len(targets), size):
            chunk = slice(first, first + size)
            logits = _float_logits(rows[chunk], table)
            nats[chunk] = _nats_(logits, targets[chunk])  # the logits are their gradient from here on
            gradient = logits.to(dtype)
            if d_hidden is not None:
                torch.mm(gradient, table, out=d_hidden[chunk])
            if d_weight is not None:
                _add_product_(d_weight, gradient.T, rows[chunk])
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.scale, ctx.dtypes = scale, (hidden.dtype, weight.dtype)
        ctx.mark_non_differentiable(nats)
        return nats.sum(dtype=torch.float32) * scale, nats

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_weight = (
            None if saved is None else (saved * (gradient * ctx.scale)).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return d_hidden, d_weight, None, None, None


def cross_entropy(
    rows: torch.Tensor, head: torch.Tensor | None, answers: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy; a :class:`spiritlm_core.lm.losses.Loss`."""
    if head is not None:
        return linear_cross_entropy(rows, head, answers, scale)
    nats = nn.functional.cross_entropy(rows.float(), answers, reduction="none")
    return nats.sum() * scale, nats.detach()


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of ``hidden @ weight.T`` against `targets`, without ever holding all logits.

    Under autocast the matrix products are in its dtype; the softmax is in float32 in any case. Arguments and result
    are those of :class:`spiritlm_core.lm.losses.Loss`: float[P, H], float[V, H], int64[P].
    """
    apply: Any = _LinearCrossEntropy.apply
    loss, nats = apply(hidden, weight, targets, scale, torch.is_grad_enabled())
    return loss, nats


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Positions whose logits are computed together."""
    size = CHUNK_BYTES * (32 if device.type == "cuda" else 1)
    return max(32, size // (4 * vocabulary))


def _autocast(tensor: torch.Tensor) -> bool:
    return torch.is_autocast_enabled(tensor.device.type)


def _float_logits(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return torch.mm(rows, table.T).float()


def _nats_(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihoods float32[n]; `logits` [n, rows] become softmax minus one-hot, in place."""
    places = targets[:, None]
    logits -= logits.amax(dim=1, keepdim=True)
    chosen = logits.gather(1, places)
    total = logits.exp_().sum(dim=1, keepdim=True)
    logits /= total
    logits.scatter_add_(1, places, torch.full_like(chosen, -1.0))
    return (total.log() - chosen)[:, 0]


def _add_product_(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """``into += left @ right`` with float32 sums, whatever the factors are."""
    if left.dtype == into.dtype:
        into.addmm_(left, right)
    else:
        into += torch.mm(left, right)
