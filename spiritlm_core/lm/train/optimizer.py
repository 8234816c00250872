"""AdamW, alone or with Muon for the matrices of the blocks; decay on matrices only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spiritlm_core.fit.muon import MOMENTUM, Muon, shared_out, whole
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.lm.config import OptimizerConfig
from spiritlm_core.lm.train.placement import blocks


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
