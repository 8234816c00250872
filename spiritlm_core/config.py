"""The base of every configuration: frozen, typed, strict about unknown keys; what of it enters a fingerprint."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from spiritlm_core.errors import SpiritLMError


class FrozenConfig(BaseModel):
    """A configuration that cannot be changed after validation; an unknown key is an error.

    Fields reach the fingerprint of what is computed with them (see :meth:`key`), so a field that never changes a
    result (batch size, thread count, log interval) belongs into a ``*Compute`` model kept apart, and one that changes
    none as the other fields are set is named by :meth:`idle`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_fingerprinted(cls, value: Any) -> Any:
        _check_plain(value)
        return value

    younger: ClassVar[AbstractSet[str]] = frozenset()
    """Fields that came later: left out of keys where they hold their default, so that older keys stay what they are."""

    def idle(self) -> AbstractSet[str]:
        """Fields that change no result as the others are set; in keys they count as their defaults."""
        return frozenset()

    def reset(self, *names: str) -> Self:
        """A copy with the defaults in the fields called `names`."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].get_default(call_default_factory=True) for name in names})

    def key(self) -> dict[str, Any]:
        """What fingerprints hold of this configuration: plain JSON values, every default spelled out."""
        plain, defaults = self.reset(*self.idle()), self.reset(*self.younger)
        values = plain.model_dump(mode="json")
        values |= {name: value.key() for name, value in plain if isinstance(value, FrozenConfig)}
        for name in self.younger:
            if getattr(plain, name) == getattr(defaults, name):
                del values[name]
        return values

    @classmethod
    def of_options(cls, **options: Any) -> Self:
        """The configuration that a caller's keyword arguments mean.

        Raises SpiritLMError: one is unknown or has no such value; it is named.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "extra_forbidden":
                name = ".".join(map(str, first["loc"]))
                raise SpiritLMError(f"there is no option {name}{meant(name, cls.model_fields)}") from None
            raise SpiritLMError(f"option {sentence_of(error)}, not {first['input']!r:.60}") from None


def message_of(error: Mapping[str, Any]) -> str:
    """What pydantic says of one error of several, without the words that it puts before those of our own checks."""
    return str(error["msg"]).removeprefix("Value error, ")


def sentence_of(error: Exception) -> str:
    """What is wrong, in one line: of a configuration the first field that is, and why."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())[:300]
    first = error.errors(include_url=False)[0]
    return ": ".join([*(".".join(map(str, first["loc"])),) * bool(first["loc"]), message_of(first)])


class NamedConfig(FrozenConfig):
    """A configuration that people have in a file of its own."""

    name: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Its name, under which snapshots, fitted models and outputs are kept.",
    )
    description: str = Field("", description="One line on what it is for.")


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{pair[0]:g} is greater than {pair[1]:g}: write the lower bound first")
    return pair


Span = Annotated[tuple[float, float], AfterValidator(_rising)]  # lowest and highest value of a number that is drawn
Optionally = bool | Literal["absent"]
"""Whether a run goes on without what cannot be had. Where it is true, that is looked at before anything is planned."""


def meant(name: str, known: Iterable[str]) -> str:
    """What an unknown name may have been meant to be, as the end of a sentence about it."""
    names = list(known)
    close = get_close_matches(name, names, 1)
    return f": {close[0]} may be meant" if close else f": there is {', '.join(names)}"


def _check_plain(value: Any) -> None:
    """Refuse what JSON, and so a fingerprint, cannot hold. Raises ValueError."""
    if isinstance(value, int) and abs(value) >= 2**53:
        raise ValueError("is beyond ±(2^53 - 1), the largest whole number that every reader of JSON understands")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds half of a surrogate pair, a character that no encoding has")
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        _check_plain(part)
