"""The contract of a source of recordings. Imports little more than pydantic."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import date
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.language import LanguageCode

if TYPE_CHECKING:
    from spiritlm_core.intake.draft import Draft

MOST_CHANNELS = 512
"""No recording may have more."""


class Source(FrozenConfig):
    """Recordings of one layout. A subclass has a literal `kind`, the settings of its layout, and `drafts`.

    `short` is the field that the short form ``KIND:VALUE`` fills.
    """

    short: ClassVar[str] = "path"

    language: LanguageCode | None = Field(None, description="Language of the recordings; null takes the recipe's.")
    speaker: str | None = Field(None, description="Speaker of every recording that names none itself.")
    channel: int | None = Field(None, ge=0, lt=MOST_CHANNELS, description="Channel, counted from 0; null averages all.")

    origin: Literal["recorded", "synthetic"] = Field(
        "recorded",
        description="synthetic: speech that a machine made; it is never held out, and voices are not fitted on it.",
    )

    licence: str | None = Field(None, description="Licence of recordings that name none, as SPDX calls it: CC-BY-4.0.")
    consent: Annotated[
        str | None, BeforeValidator(lambda said: ("no", "yes")[said] if isinstance(said, bool) else said)
    ] = Field(
        None,
        description="Consent to the use of recordings that tell of none: yes, or signed on a day; no rejects them.",
    )
    expires: date | None = Field(None, description="Last day of the consent; later runs reject the recordings.")

    younger: ClassVar[AbstractSet[str]] = {"licence", "consent", "expires"}

    @property
    def described(self) -> str:
        """What a model card says of it; nothing where only whoever publishes the model knows."""
        return ""

    def drafts(self) -> Iterator[Draft]:
        """Every recording that is there, or stretch of one, good or bad, as its layout describes it.

        Raises:
            SourceError: the source cannot be listed at all.
        """
        raise NotImplementedError


class TreeSource(Source):
    """A folder, or what lies below a prefix on S3."""

    path: str = Field(min_length=1, description="Folder, or s3://bucket/prefix.")
    follow_symlinks: bool = Field(False, description="Read links that leave the folder, too, instead of refusing them.")
    encoding: str = Field("utf-8", description="Character encoding of the transcripts.")
