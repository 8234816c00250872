"""What can go wrong in training. Light on purpose: the driver of a run raises these without loading torch."""

from __future__ import annotations

from spiritlm_core.errors import SpiritLMError


class TrainingError(SpiritLMError):
    """Training cannot go on: it diverged, or it was asked to stop."""


class CheckpointError(SpiritLMError):
    """A checkpoint cannot be loaded, or belongs to another vocabulary."""


class TokenRangeError(SpiritLMError):
    """A training sequence holds an id that the vocabulary does not have."""
