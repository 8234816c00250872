"""Settings of the evaluation."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

from pydantic import Field

from spiritlm_core.config import FrozenConfig, Optionally
from spiritlm_core.references.syntax import ModelReference


class EvaluateConfig(FrozenConfig):
    """What is measured on the held-out recordings, and on how much of them."""

    younger: ClassVar[AbstractSet[str]] = {"recogniser_optional"}

    seed: int = Field(0, ge=0, description="Seed of all that is drawn: utterances, shots, bootstrap, sampling.")
    context_length: int | None = Field(
        None, ge=32, description="Longest sequence in tokens, never beyond the model's limit; null: as in training."
    )
    documents: int = Field(500, ge=2, description="Most held-out documents scored per stream.")
    baseline_documents: int = Field(20_000, ge=1, description="Most train documents per stream behind the baseline.")
    shots: int = Field(
        4,
        ge=0,
        le=32,
        description="Solved examples from train in front of each few-shot question; 0 asks without examples alone.",
    )
    fewshot_utterances: int = Field(16, ge=0, description="Held-out utterances asked in each task; 0: none.")
    max_new_tokens: int = Field(96, ge=1, description="Longest answer in tokens; questions leave this much room.")
    recogniser: ModelReference | None = Field(
        None,
        description="Reference of a faster-whisper model that writes down recordings, resynthesis and spoken answers, "
        "such as hf://Systran/faster-whisper-tiny.en; null: none.",
    )
    recogniser_optional: Optionally = Field(
        False,
        description="Where `recogniser` cannot be had: true goes on without and says so; false is an error. "
        "absent: it does anyhow.",
    )
    listened: int = Field(
        12, ge=0, description="Held-out utterances whose spoken answer and resynthesis are heard and written down."
    )
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    samples: int = Field(1, ge=0, le=20, description="Outputs of each kind that the report shows.")
    figures: int = Field(3, ge=0, le=10, description="Held-out utterances drawn in the report, with words and units.")

    @property
    def given_recogniser(self) -> str | None:
        """Reference of the recogniser; None where nobody listens."""
        return None if self.recogniser_optional == "absent" else self.recogniser
