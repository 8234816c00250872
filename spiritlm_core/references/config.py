"""The type of a configuration field that names a model."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.syntax import parse


def _checked(reference: str) -> str:
    try:
        parse(reference)
    except ModelReferenceError as error:
        raise ValueError(str(error)) from None
    return reference


ModelReference = Annotated[str, AfterValidator(_checked)]
"""A string in the syntax of :func:`spiritlm_core.references.syntax.parse`; nothing is fetched to check it."""
