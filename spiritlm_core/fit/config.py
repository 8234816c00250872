"""How the processes of a fit run. Up to rounding, nothing here changes what is learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spiritlm_core.config import FrozenConfig

Precision = Literal["auto", "bf16", "fp32"]
"""Of the arithmetic of a fit; ``auto`` is bf16 on a GPU and on a CPU with bf16 tiles (Intel AMX), else fp32. Weights
are float32 in any case."""


class FitCompute(FrozenConfig):
    """What every fit is told about its processes."""

    workers: int = Field(1, ge=1, description="Processes that fit together (one GPU each, or one group of CPU cores).")
    use_gpu: bool | None = Field(None, description="Whether the processes get GPUs; null: where there are any.")
    cpus_per_worker: int | None = Field(None, ge=1, description="CPU cores of one process; null shares the machine's.")
    retries: int = Field(3, ge=0, description="How often dead processes are replaced before the run stops.")
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Custom resources of a Ray cluster that each process reserves, such as `steady: 0.001`."
    )
    placement: Literal["pack", "spread", "strict_pack"] = Field(
        "pack",
        description="Where a Ray cluster puts the processes: on as few machines as it can, on as many, or all on one.",
    )

    @property
    def own_workers(self) -> bool:
        """Whether the fit is a job with processes of its own; else it runs in the worker of an artifact."""
        return self.workers > 1 or self.use_gpu is not None
