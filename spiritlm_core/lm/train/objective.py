"""What is minimised: a causal language model, its packed input, the loss of each target, and its place on the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils import checkpoint

from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.lake.plan import load_class
from spiritlm_core.lm.config import LmCompute
from spiritlm_core.lm.losses import LOSSES, Loss
from spiritlm_core.lm.model.attention import register
from spiritlm_core.lm.model.network import CausalLM
from spiritlm_core.lm.train.data import Batch
from spiritlm_core.tokens.corpus import STREAMS

_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of models that do more to the logits than a matrix product."""


class Objective(nn.Module):
    """A model with its loss, as one module: what FSDP wraps holds the output layer while the loss is computed.

    Attributes:
        lm: the model of transformers.
        attention: as in ``LmCompute.attention``.
    """

    def __init__(
        self,
        lm: CausalLM,
        attention: str = "documents",
        loss: str = "cross_entropy",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`loss` is one of :data:`spiritlm_core.lm.losses.LOSSES`; `weights` are of streams, 1 where not given."""
        super().__init__()
        self.lm = lm
        self.attention = attention
        if attention == "documents":
            lm.config._attn_implementation = register()  # noqa: SLF001 - what loading with it would have set
        self._loss: Loss = load_class(LOSSES[loss])
        self._plain = _plain_output(lm)
        given = weights or {}
        self.weights = tuple(given.get(stream, 1.0) for stream in STREAMS)

    def forward(self, batch: Batch, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """What :class:`spiritlm_core.lm.losses.Loss` returns, for a batch on the model's device.

        The loss counts a target as often as the weight of its stream says; the likelihoods, float32[P] in the order of
        ``batch.predicting``, are without weights.
        """
        states = self._hidden(batch) if self._plain else self._logits(batch)
        rows = states.flatten(0, 1).index_select(0, batch.predicting)
        head = self.lm.get_output_embeddings().weight if self._plain else None
        weights = set(self.weights)
        if len(weights) == 1:
            return self._loss(rows, head, batch.answers, scale * self.weights[0])
        of_target = torch.tensor(self.weights, device=rows.device)[batch.streams]
        total, nats = rows.new_zeros((), dtype=torch.float32), torch.empty(len(rows), device=rows.device)
        for weight in weights:  # a loss knows one scale for all its targets
            chosen = (of_target == weight).nonzero()[:, 0]
            loss, nats[chosen] = self._loss(rows[chosen], head, batch.answers[chosen], scale * weight)
            total = total + loss
        return total, nats

    def weighted(self, of_streams: Sequence[float]) -> float:
        """The sum over streams, each as often as its weight says."""
        return sum(weight * value for weight, value in zip(self.weights, of_streams, strict=True))

    def _hidden(self, batch: Batch) -> torch.Tensor:
        hidden: torch.Tensor = self.lm.base_model(**self._inputs(batch)).last_hidden_state
        return hidden

    def _logits(self, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = self.lm(**self._inputs(batch)).logits
        return logits

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """Arguments of the model's forward pass, with no attention across documents.

        ``sdpa`` gets a block-diagonal causal mask. The others get all sequences in one row: ``flash_attention_2``
        derives the bounds of documents from the positions, ``documents`` is told them.
        """
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
        if self.attention == "sdpa":
            return {**inputs, "attention_mask": batch.mask()}
        row = {name: value.reshape(1, -1) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        return {**inputs, **row, **({"documents": batch.documents} if self.attention == "documents" else {})}


def _plain_output(lm: CausalLM) -> bool:
    """Whether logits are the last hidden states times the output layer, and nothing else."""
    head = lm.get_output_embeddings()
    scaled = any(getattr(lm.config, name, None) not in (None, 1, 1.0) for name in _SCALED_LOGITS)
    return type(head) is nn.Linear and head.bias is None and not scaled


def model_attention(attention: str) -> str:
    """The implementation that a model for this objective is loaded with."""
    return "sdpa" if attention == "documents" else attention


def place(objective: Objective, ranks: Ranks, compute: LmCompute) -> Objective:
    """Put the model on this rank's device, sharded over the ranks (FSDP2) if there are several."""
    if compute.activation_checkpointing != "none":
        recompute_activations(objective.lm, selective=compute.activation_checkpointing == "selective")
    if compute.compile:
        for block in blocks(objective.lm):
            block.compile()  # type: ignore[no-untyped-call]
    return objective.to(ranks.device) if ranks.size == 1 else _shard(objective, ranks)


def _shard(objective: Objective, ranks: Ranks) -> Objective:
    if not isinstance(blocks(objective.lm)[0], FSDPModule):  # a model that was built whole
        share_blocks(objective.lm, ranks)
    fully_shard(objective, **_sharding(ranks))
    for module in objective.modules():
        if isinstance(module, FSDPModule):  # gradients summed, not averaged: the loss is already a mean over all
            module.set_force_sum_reduction_for_comms(True)  # ranks' tokens; and gloo would sum them anyway
            module.set_gradient_divide_factor(1.0)
    return objective


def share_blocks(lm: CausalLM, ranks: Ranks) -> None:
    """Shard the blocks over the ranks (FSDP2); those on the meta device get room for their share, with any values."""
    sharding = _sharding(ranks)
    for block in blocks(lm):
        fully_shard(block, **sharding)
        fill: Any = block._apply  # noqa: SLF001 - as to_empty, which would empty buffers, too
        fill(lambda tensor: torch.empty_like(tensor, device=ranks.device) if tensor.is_meta else tensor)


def _sharding(ranks: Ranks) -> dict[str, Any]:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if ranks.bf16 else None, reduce_dtype=torch.float32)
    return {"mesh": init_device_mesh(ranks.device.type, (ranks.size,)), "mp_policy": policy}


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
    contexts: Any = checkpoint.create_selective_checkpoint_contexts
    kernels = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    attention = [getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}", None) for kernel in kernels]
    expensive = [torch.ops.aten.mm, torch.ops.aten.addmm, *attention]
    return contexts([op.default for op in expensive if op is not None])
