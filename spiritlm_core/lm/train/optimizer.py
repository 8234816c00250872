"""AdamW, alone or with Muon for the matrices of the blocks, whose steps are orthogonal; decay on matrices only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate

from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.lm.config import OptimizerConfig
from spiritlm_core.lm.train.objective import blocks


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Fused AdamW (decoupled weight decay, arXiv 1711.05101), or Muon with it; gains and biases are not decayed.

    Muon takes the matrices of the transformer blocks: a row of an embedding or of the output layer belongs to a token
    of its own, and their gradients are no matrices whose directions could be evened out.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inner = {id(p) for p in blocks(model).parameters()} if config.kind == "muon" else set()
    matrices = [p for p in parameters if p.ndim >= 2]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in matrices if id(p) not in inner], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in matrices if id(p) in inner], "weight_decay": config.weight_decay, "momentum": MOMENTUM},
    ]
    return (Muon if config.kind == "muon" else torch.optim.AdamW)(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate of `step` (from 0) out of `steps`; see :func:`spiritlm_core.fit.schedule.learning_rate_scale`."""
    return config.learning_rate * learning_rate_scale(
        step,
        steps,
        config.schedule,
        warmup=config.warmup_steps,
        floor=config.final_share,
        decay_share=config.decay_share,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float, config: OptimizerConfig) -> None:
    """Use `value` for the next step; in proportion to it, Muon's rate for Muon's group."""
    for group in optimizer.param_groups:
        group["lr"] = value * (config.muon_learning_rate / config.learning_rate if "momentum" in group else 1)


@torch.no_grad()
def optimise(optimizer: torch.optim.Optimizer, lm: Any, first: int, config: OptimizerConfig) -> None:
    """A step of the optimiser, in which embedding rows from `first` on have a learning rate of their own.

    AdamW moves p by ``lr (m / (sqrt(v) + epsilon) + decay p)``, in proportion to the learning rate: rows that are moved
    `ratio` times as far have `ratio` times that of the others.
    """
    ratio = (config.new_rows_learning_rate or config.learning_rate) / config.learning_rate
    tables = [table for table in _tables(lm) if table.grad is not None and ratio != 1]
    before = [table.detach().clone() for table in tables]
    optimizer.step()
    for table, old in zip(tables, before, strict=True):
        table.add_((table - old) * _from_row(first, table), alpha=ratio - 1)


def keep_new_rows(lm: Any, first: int, optimizer: torch.optim.Optimizer) -> None:
    """Leave gradients to the embedding rows from `first` on alone, and switch weight decay off.

    What has no gradient is not updated, and what has a zero gradient and no past neither: all other weights stay as
    they are, bit for bit.
    """
    tables = _tables(lm)
    for parameter in lm.parameters():
        if not any(parameter is table for table in tables):
            parameter.grad = None
    for table in tables:
        if table.grad is not None:
            table.grad.mul_(_from_row(first, table))
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0


def _tables(lm: Any) -> list[torch.Tensor]:
    """Embedding and output layer; one where they are tied."""
    entry, output = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    return [entry] if entry is output else [entry, output]


def _from_row(first: int, table: torch.Tensor) -> torch.Tensor:
    """float[rows, 1], 1 from row `first` on; shared out to the ranks as `table` is."""
    rows = (torch.arange(table.shape[0], device=table.device) >= first).to(table.dtype)[:, None]
    return shared_out(rows, table)


def set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Use `value` for the groups of matrices."""
    for group in optimizer.param_groups:
        if group["params"][0].ndim >= 2:
            group["weight_decay"] = value


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scale the gradients down to a global norm of `limit`; returns the norm before, over all ranks."""
    return float(whole(nn.utils.clip_grad_norm_(model.parameters(), limit)))


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
    copies = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return copies.redistribute(placements=like.placements)  # type: ignore[attr-defined]
