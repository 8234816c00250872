"""Where one training process runs: its rank, its device, and how the model is spread over the ranks."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.config import LmCompute, Precision
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.objective import Objective


@dataclass(frozen=True)
class World:
    """The training processes as one of them sees them."""

    rank: int
    size: int
    device: torch.device
    bf16: bool

    @classmethod
    def current(cls, compute: LmCompute, precision: Precision) -> World:
        """Read rank and size from torch.distributed if it is initialised, else one process alone.

        Raises:
            SpiritLMError: a GPU was asked for and there is none.
        """
        ready = dist.is_available() and dist.is_initialized()
        gpu = torch.cuda.is_available() if compute.use_gpu is None else compute.use_gpu
        if gpu and not torch.cuda.is_available():
            raise SpiritLMError("compute.use_gpu is set but torch sees no GPU")
        device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        bf16 = gpu if precision == "auto" else precision == "bf16"
        return cls(dist.get_rank() if ready else 0, dist.get_world_size() if ready else 1, device, bf16)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and reports."""
        return self.rank == 0

    def place(self, objective: Objective, compute: LmCompute) -> Objective:
        """Put the model on this rank's device, sharded over the ranks (FSDP2) if there are several."""
        if compute.activation_checkpointing != "none":
            recompute_activations(objective.lm, selective=compute.activation_checkpointing == "selective")
        if compute.compile:
            for block in blocks(objective.lm):
                block.compile()  # type: ignore[no-untyped-call]
        if self.size == 1:
            return objective.to(self.device)
        return self._shard(objective)

    def _shard(self, objective: Objective) -> Objective:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        dtype = torch.bfloat16 if self.bf16 else None
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        for block in blocks(objective.lm):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(objective, mesh=mesh, mp_policy=policy)
        for module in objective.modules():
            if isinstance(module, FSDPModule):  # gradients summed, not averaged: the loss is already a mean over all
                module.set_force_sum_reduction_for_comms(True)  # ranks' tokens; and gloo would sum them anyway
                module.set_gradient_divide_factor(1.0)
        return objective

    def arithmetic(self) -> AbstractContextManager[object]:
        """The context of a forward pass: bfloat16 products if asked for, float32 weights in any case."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values` summed over all ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def cpu_group(self) -> dist.ProcessGroup | None:
        """A group of all ranks for collectives on the CPU that another thread starts; every rank must call this."""
        return dist.new_group(backend="gloo") if self.size > 1 else None

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


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
    return contexts([op.default for op in _expensive() if op is not None])


def _expensive() -> list[Any]:
    kernels = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    attention = [getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}", None) for kernel in kernels]
    return [torch.ops.aten.mm, torch.ops.aten.addmm, *attention]
