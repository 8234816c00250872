"""How the model is spread over the ranks that train it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lm.config import LmCompute
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.objective import Objective


def place(objective: Objective, ranks: Ranks, compute: LmCompute) -> Objective:
    """Put the model on this rank's device, sharded over the ranks (FSDP2) if there are several."""
    if compute.activation_checkpointing != "none":
        recompute_activations(objective.lm, selective=compute.activation_checkpointing == "selective")
    if compute.compile:
        for block in blocks(objective.lm):
            block.compile()  # type: ignore[no-untyped-call]
    return objective.to(ranks.device) if ranks.size == 1 else _shard(objective, ranks)


def _shard(objective: Objective, ranks: Ranks) -> Objective:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    dtype = torch.bfloat16 if ranks.bf16 else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in blocks(objective.lm):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    for module in objective.modules():
        if isinstance(module, FSDPModule):  # gradients summed, not averaged: the loss is already a mean over all
            module.set_force_sum_reduction_for_comms(True)  # ranks' tokens; and gloo would sum them anyway
            module.set_gradient_divide_factor(1.0)
    return objective


def blocks(model: CausalLM) -> nn.ModuleList:
    """The transformer blocks of a Hugging Face causal LM."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def recompute_activations(model: CausalLM, *, selective: bool) -> None:
    """Keep only the inputs of each block for the backward pass; `selective` also what is expensive to compute.

    Selective checkpointing keeps the results of matrix products and of attention, and computes the cheap operations
    between them again (arXiv 2205.05198, section 5).
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if selective:
        options["context_fn"] = _keep_expensive
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _keep_expensive() -> Any:
    from torch.utils import checkpoint

    contexts: Any = checkpoint.create_selective_checkpoint_contexts
    kernels = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    attention = [getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}", None) for kernel in kernels]
    expensive = [torch.ops.aten.mm, torch.ops.aten.addmm, *attention]
    return contexts([op.default for op in expensive if op is not None])
