"""The encoder that a recipe names: before anything is planned, whether it can be had, and whether it is one."""

from __future__ import annotations

from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.references.reference import resolve
from spiritlm_core.speech.config import UnitsConfig

WITHOUT = (
    "`units.encoder` could not be had, so these units are of a HuBERT fitted here; a run that can reach it uses it "
    "(with units.encoder_optional=false it stops and says why)"
)
"""What people are told of units without an encoder that was wanted."""


def settled(units: UnitsConfig) -> UnitsConfig:
    """`units` without an optional encoder that cannot be had; it is fetched if it can.

    Raises:
        RecipeError: there is no encoder that could be optional.
        ModelReferenceError: a folder of this machine is no encoder.
    """
    if units.encoder_optional and units.encoder is None:
        raise RecipeError("units.encoder_optional is true, but there is no units.encoder")
    if units.encoder_optional:
        try:
            resolve(str(units.encoder))
        except ModelReferenceError:
            return units.model_copy(update={"encoder": None})
    for reference in (units.given_encoder, units.given_encoder is None and units.hubert.labels):
        if reference and reference.startswith("file://"):
            from spiritlm_core.speech.encoders.registry import check_folder

            check_folder(resolve(reference).path)
    return units
