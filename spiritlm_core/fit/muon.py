"""Muon: steps whose matrices are orthogonal; all other parameters take those of AdamW, in the same optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for parameter groups with a `momentum`, else AdamW.

    With W a matrix of m rows and n columns, G its gradient, B its momentum and β the group's `momentum`, a step is::

        B ← β B + (1 - β) G
        W ← (1 - lr weight_decay) W - lr sqrt(max(1, m / n)) NS((1 - β) G + β B)

    where NS is :func:`orthogonalised`. The look ahead is Nesterov's. How long a gradient is matters only beside
    those before it. Parameters of more axes, as convolutions have, are matrices of a row per output channel. Those that
    FSDP shares out to ranks are gathered one by one, so that all ranks take the step that one alone does.

    Example:
        ``Muon([{"params": matrices, "lr": 0.02, "momentum": MOMENTUM}, {"params": others}], lr=2e-3, fused=True)``
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient; others, and their state, stay as they are."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if "momentum" not in group]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if "momentum" in group:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:  # AdamW looks for a `step` in every state that it loads
            state.update(step=torch.tensor(0.0), momentum_buffer=torch.zeros_like(parameter))
        state["step"] += 1
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = whole(gradient.lerp(buffer, group["momentum"]))
        matrix = ahead.flatten(1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        direction = shared_out(orthogonalised(matrix).to(parameter.dtype).view_as(ahead), parameter)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction, alpha=-group["lr"] * scale)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly U Vᵀ of the singular value decomposition U S Vᵀ of float[m, n]; zeros of zeros.

    Five steps of Newton and Schulz, ``X ← a X + (b X Xᵀ + c (X Xᵀ)²) X``, whose coefficients lift small singular
    values fast and leave them between about 0.7 and 1.2 rather than at 1 (Jordan et al. 2024). In bfloat16 on a GPU.
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    x = x.to(torch.bfloat16) if x.is_cuda else x
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which this rank may hold a part."""
    full = getattr(tensor, "full_tensor", None)
    gathered: torch.Tensor = tensor if full is None else full()
    return gathered


def shared_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's part of what every rank has, shared out as `like` is."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None:
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    copies = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return copies.redistribute(placements=like.placements)  # type: ignore[attr-defined]
