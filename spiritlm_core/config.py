"""The base of every configuration: frozen, typed, and strict about unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """A configuration that cannot be changed after validation; an unknown key is an error.

    Every field reaches the fingerprint of what is computed with it, so a field that does not change
    the result (batch size, thread count, log interval) belongs into a ``*Compute`` model kept apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
