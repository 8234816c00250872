"""Configuration of tokens: the text tokenizer, the vocabulary, interleaving, and the mix of streams."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.references.syntax import ModelReference


class TokenizerConfig(FrozenConfig):
    """The text tokenizer: one fitted on the corpus, or that of the base model for a warm start."""

    younger: ClassVar[AbstractSet[str]] = {"text"}

    text: Literal["given", "spoken"] = Field(
        "given",
        description="Form in which the model knows texts. spoken: lower case, numbers in words, no punctuation but "
        "apostrophes, in training and in use, so that a small model need not learn how things are written.",
    )
    base: ModelReference | None = Field(
        None,
        description="Model reference whose tokenizer is taken as it is (folder or .gguf file); "
        "null trains a SentencePiece BPE on the transcripts.",
    )
    vocab_size: int = Field(
        1024,
        ge=320,
        le=262_144,
        description="Pieces of a trained tokenizer; fewer if the transcripts do not give as many.",
    )
    character_coverage: float = Field(
        1.0, ge=0.9, le=1.0, description="Share of the characters that get a piece; the others are written as bytes."
    )
    max_lines: int = Field(
        1_000_000,
        ge=1,
        description="Most transcripts that a tokenizer is trained on; drawn at random if there are more.",
    )
    seed: int = Field(0, ge=0, description="Seed of the draw of transcripts, where there are more than `max_lines`.")

    def idle(self) -> AbstractSet[str]:
        """All but the form, for a tokenizer that is taken as it is: the model in the role ``base`` says which."""
        return frozenset() if self.base is None else set(TokenizerConfig.model_fields) - {"text"}


class TokenizerStageConfig(TokenizerConfig):
    """What the stage is given, the language of the recipe included."""

    younger: ClassVar[AbstractSet[str]] = {*TokenizerConfig.younger, "language"}

    language: str = Field("en", description="Language in which numbers and symbols of texts in spoken form are read.")

    def idle(self) -> AbstractSet[str]:
        """The language, too, where texts are as given."""
        return {*super().idle(), *(("language",) if self.spoken is None else ())}

    @property
    def spoken(self) -> str | None:
        """The language in whose spoken form texts are; None: they are as given."""
        return self.language if self.text == "spoken" else None


class SequencesConfig(FrozenConfig):
    """How text and speech tokens are laid out word by word."""

    hubert: int = Field(501, ge=1, le=32_767, description="Number of phonetic units [Hu].")
    pitch: int = Field(64, ge=0, le=128, description="Number of pitch units [Pi]; 0 for Base.")
    style: int = Field(100, ge=0, le=128, description="Number of style units [St]; 0 for Base.")
    max_interpolated: float = Field(
        0.34, ge=0, le=1, description="A segment with a larger share of interpolated words becomes speech only."
    )


class SequencesStageConfig(SequencesConfig):
    """What the stage is given, the rate of the units included."""

    younger: ClassVar[AbstractSet[str]] = {"rate"}

    rate: float = Field(25.0, gt=0, description="Phonetic units per second.")


class UniformLaw(FrozenConfig):
    """Span lengths drawn evenly between two bounds, both included (the paper)."""

    kind: Literal["uniform"] = "uniform"
    minimum: int = Field(ge=1, le=10_000, description="Shortest span in words.")
    maximum: int = Field(ge=1, le=10_000, description="Longest span in words.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is below minimum {self.minimum}")
        return self

    def length(self, draw: float) -> int:
        """The length that a draw, even over [0, 1), stands for."""
        return self.minimum + int(draw * (self.maximum - self.minimum + 1))


class PoissonLaw(FrozenConfig):
    """Span lengths 1 + Poisson(mean - 1): never empty, and with that mean."""

    kind: Literal["poisson"] = "poisson"
    mean: float = Field(ge=1, le=500, description="Mean length of a span in words.")

    def length(self, draw: float) -> int:
        """The length that a draw, even over [0, 1), stands for."""
        return 1 + bisect_right(_poisson_cdf(self.mean - 1), draw)


@lru_cache
def _poisson_cdf(mean: float) -> Sequence[float]:
    """P(X <= k) for k = 0, 1, ... up to where nothing is left; P(X = k) is ``mean^k exp(-mean) / k!``."""
    most = math.ceil(mean + 12 * math.sqrt(mean) + 20) if mean > 0 else 0
    return list(accumulate(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(most)))


class FixedLaw(FrozenConfig):
    """Every span has the same length."""

    kind: Literal["fixed"] = "fixed"
    words: int = Field(ge=1, le=10_000, description="Length of a span in words.")

    def length(self, draw: float) -> int:
        """The length that a draw, even over [0, 1), stands for."""
        return self.words


SpanLaw = Annotated[UniformLaw | PoissonLaw | FixedLaw, Field(discriminator="kind")]


PAIRS = ("asr", "tts", "classification")  # the streams of solved examples, in the format of prompts


class PairsConfig(FrozenConfig):
    """How the documents of the streams of solved examples are drawn."""

    crops: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the examples of asr and tts that are some words of an utterance and not the whole of it; "
        "the words of a short example tell which sounds belong to them.",
    )
    crop_words: SpanLaw = Field(
        UniformLaw(minimum=1, maximum=6), description="Law of the lengths of those crops in words."
    )
    shots: int = Field(
        0,
        ge=0,
        le=1000,
        description="Most solved examples in front of the last one of a document, as in a few-shot prompt; how many "
        "there are is drawn evenly from 0 on.",
    )
    spoken_by: Literal["all", "people"] = Field(
        "all",
        description="Whose speech the answers of tts are. people: none of a machine (origin: synthetic), so that the "
        "model does not take on its voice; where all speech is a machine's, it is all the same.",
    )
    people_times: int = Field(
        1,
        ge=1,
        le=100,
        description="How many solved examples a recording of a person gives in an epoch, where one of a "
        "machine gives one: so that many hours of synthetic speech do not drown the few of people.",
    )
    loss: Literal["answer", "all"] = Field(
        "answer", description="What the loss counts: the answers and the tokens that end them, or everything."
    )

    def idle(self) -> AbstractSet[str]:
        """The lengths of crops where there are none."""
        return frozenset() if self.crops else {"crop_words"}


class SharesConfig(FrozenConfig):
    """Weights of the streams: their shares of the training tokens, in proportion."""

    younger: ClassVar[AbstractSet[str]] = {"documents", *PAIRS}

    text: float = Field(1.0, ge=0, description="Weight of the text stream.")
    speech: float = Field(1.0, ge=0, description="Weight of the speech stream.")
    interleaved: float = Field(1.0, ge=0, description="Weight of the interleaved stream.")
    asr: float = Field(0.0, ge=0, description="Weight of the stream of speech with its words as the answer.")
    tts: float = Field(0.0, ge=0, description="Weight of the stream of words with their speech as the answer.")
    classification: float = Field(
        0.0, ge=0, description="Weight of the stream of speech with the label of the recording as the answer."
    )
    documents: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Part of the text stream that comes from the text documents, the rest from the transcripts; "
        "null goes by their sizes.",
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.text + self.speech + self.interleaved <= 0 and not self.pairs:
            raise ValueError("at least one stream needs a weight above 0")
        return self

    @property
    def pairs(self) -> tuple[str, ...]:
        """The streams of solved examples that have a share."""
        return tuple(stream for stream in PAIRS if getattr(self, stream) > 0)


class TokensConfig(FrozenConfig):
    """Tokens: from words and units to packed training sequences."""

    younger: ClassVar[AbstractSet[str]] = {"pairs", "in_memory"}

    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="Text tokenizer: trained here or a base model's.")
    sequences: SequencesConfig = Field(
        SequencesConfig(), description="How many speech tokens there are, and which segments have words."
    )
    context_length: int = Field(1024, ge=16, le=1_048_576, description="Tokens in a training sequence.")
    text_span: SpanLaw = Field(
        UniformLaw(minimum=10, maximum=30), description="Law of the lengths of text spans in interleaved sequences."
    )
    speech_span: SpanLaw = Field(
        UniformLaw(minimum=5, maximum=15), description="Law of the lengths of speech spans in interleaved sequences."
    )
    shares: SharesConfig = Field(SharesConfig(), description="Shares of the streams in the training tokens.")
    pairs: PairsConfig = Field(PairsConfig(), description="Documents of the streams of solved examples.")
    window: int = Field(256, ge=1, le=65_536, description="Number of sequences packed, and then shuffled, together.")
    in_memory: float = Field(
        400.0,
        gt=0,
        description="Most MB of the corpus that a process of training has in memory; a larger one is drawn from block "
        "by block.",
    )

    def idle(self) -> AbstractSet[str]:
        """How examples are drawn where no stream of them has a share."""
        return frozenset() if self.shares.pairs else {"pairs"}
