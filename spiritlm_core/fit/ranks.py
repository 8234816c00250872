"""The processes that fit one model together, as one of them sees them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from spiritlm_core.cores import has_amx
from spiritlm_core.fit.config import Precision

Item = TypeVar("Item")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """Rank of this process and number of processes; whoever started them initialised torch.distributed."""

    rank: int = 0  # of this process, from 0
    size: int = 1  # number of processes
    device: torch.device = CPU  # what this process computes on
    bf16: bool = False  # whether its matrix products are in bfloat16

    @classmethod
    def current(cls, use_gpu: bool | None = None, precision: Precision = "fp32") -> Ranks:
        """Those of the process group, or one process alone; `use_gpu` None: if there is one."""
        gpu = torch.cuda.is_available() if use_gpu is None else use_gpu
        device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        bf16 = gpu or has_amx() if precision == "auto" else precision == "bf16"
        ready = dist.is_available() and dist.is_initialized()
        return cls(*((dist.get_rank(), dist.get_world_size()) if ready else (0, 1)), device, bf16)

    @property
    def first(self) -> bool:
        """Whether this is the process that clusters, writes files and reports."""
        return self.rank == 0

    def arithmetic(self) -> AbstractContextManager[object]:
        """The context of a forward pass: bfloat16 products if asked for, float32 weights in any case."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def cpu_group(self) -> dist.ProcessGroup | None:
        """A group of all ranks for collectives on the CPU that another thread starts; every rank must call this."""
        return dist.new_group(backend="gloo") if self.size > 1 else None

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values`, which are replaced by their sums over all ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, share: list[Item]) -> list[Item]:
        """All items, where process `rank` has the items ``rank, rank + size, …`` of them, on every process."""
        if self.size == 1:
            return share
        shares: list[list[Item]] = [[]] * self.size
        dist.all_gather_object(shares, share)
        return [shares[i % self.size][i // self.size] for i in range(sum(map(len, shares)))]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], values: torch.Tensor) -> torch.Tensor:
        """Replace every gradient by the sum over all processes, in one message; so is the float32[N] `values` returned.

        A sum, since each process divides its share of the loss by the frames of all.
        """
        if self.size == 1:
            return values
        gradients = [p.grad if p.grad is not None else _zero_gradient(p) for p in parameters if p.requires_grad]
        message = torch.cat([values, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(message)
        values, *summed = torch.split(message, [len(values), *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, summed, strict=True):
            gradient.copy_(part.view_as(gradient))
        return values


def _zero_gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A gradient for a parameter that took no part."""
    parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
