"""The base of every configuration: frozen, typed, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from spiritlm_core.errors import SpiritLMError


class FrozenConfig(BaseModel):
    """A configuration that cannot be changed after validation; an unknown key is an error.

    Every field reaches the fingerprint of what is computed with it, so a field that does not change
    the result (batch size, thread count, log interval) belongs into a ``*Compute`` model kept apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Self:
        """The configuration that a caller's keyword arguments mean.

        Raises:
            SpiritLMError: one is unknown or has no such value; it is named.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                raise SpiritLMError(f"there is no option {name}{meant(name, cls.model_fields)}") from None
            raise SpiritLMError(f"option {name}: {first['msg']}, not {first['input']!r:.60}") from None


def meant(name: str, known: Iterable[str]) -> str:
    """What an unknown name may have been meant to be, as the end of a sentence about it."""
    names = list(known)
    close = get_close_matches(name, names, 1)
    return f": {close[0]} may be meant" if close else f": there is {', '.join(names)}"
