"""The syntax of model references, checked without touching the network."""

import os
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.names import checked_name, stays_inside

Scheme = Literal["hf", "file", "s3", "pypi"]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PIN = re.compile(r"sha256=(?P<sha256>[0-9a-f]{64})(?:&files=(?P<files>[^&#]+))?")
_BETWEEN = re.compile(r"\s+(?=[a-z0-9]+://)")
_FORMS: dict[Scheme, tuple[str, re.Pattern[str]]] = {
    "hf": (
        "hf://ORG/NAME or hf://ORG/NAME@REVISION",
        re.compile(rf"(?P<name>(?:{_NAME}/)?{_NAME})(?:@(?P<version>[^@#\s]+))?"),
    ),
    "file": ("file:///PATH", re.compile(r"(?P<name>[^\s#][^#]*)")),
    "s3": ("s3://BUCKET/PATH", re.compile(r"(?P<name>[^/\s#]+/[^#]*[^#/\s][^#]*)")),
    "pypi": (
        "pypi://PACKAGE==VERSION/PATH-IN-WHEEL, with a trailing / for a folder",
        re.compile(rf"(?P<name>{_NAME})==(?P<version>[A-Za-z0-9.+!_-]+)/(?P<path>[^#]+)"),
    ),
}
_PINNED = "#sha256=… behind it pins it, #sha256=…&files=A,B some files of a folder"


@dataclass(frozen=True)
class Parsed:
    """One place of a model, taken apart."""

    scheme: Scheme  # where to look
    name: str  # ``org/name``, a local path, ``bucket/prefix`` or a package
    version: str | None = None  # revision or package version, where the scheme has one
    path: str | None = None  # path in the wheel; a folder ends in ``/``
    sha256: str | None = None  # pinned digest of the content, if given
    files: tuple[str, ...] = ()  # the files of a folder that are the content, sorted; empty where all are

    @property
    def uri(self) -> str:
        """The place without its pin."""
        version = f"{'==' if self.scheme == 'pypi' else '@'}{self.version}" if self.version else ""
        return f"{self.scheme}://{self.name}{version}{f'/{self.path}' if self.path else ''}"


def mirrors(reference: str) -> list[Parsed]:
    """The places of one model that a reference lists, in order, with white space between them.

    A pin says what they have in common, and holds for those without one, too.

    Raises ModelReferenceError: one has no known form, or there are several without a pin or with different ones.
    """
    places = [parse(one) for one in _BETWEEN.split(reference)]
    pins = {(place.sha256, place.files) for place in places if place.sha256}
    if len(places) > 1 and len(pins) != 1:
        raise ModelReferenceError(
            f"{reference!r} lists several mirrors, which must hold one content: "
            f"write the same #sha256=… behind {'all that have one' if pins else 'one of them at least'}"
        )
    return [replace(place, sha256=sha256, files=files) for sha256, files in pins for place in places] or places


def parse(reference: str) -> Parsed:
    """Take one place of a model apart.

    Raises ModelReferenceError: if it has no known form; the message shows the form.
    """
    scheme, separator, rest = reference.partition("://")
    if not separator or scheme not in _FORMS:
        forms = "; ".join(form for form, _ in _FORMS.values())
        raise ModelReferenceError(f"{reference!r} is not a model reference; write {forms}; {_PINNED}")
    form, pattern = _FORMS[scheme]
    place, hash_sign, fragment = rest.partition("#")
    match, pin = pattern.fullmatch(place), _PIN.fullmatch(fragment)
    if match is None or (hash_sign and pin is None):
        raise ModelReferenceError(f"{reference!r} is not a model reference; write {form}; {_PINNED}")
    parts = match.groupdict()
    if parts.get("path") and not stays_inside(parts["path"]):
        raise ModelReferenceError(f"{reference!r} leaves the wheel; its path must be relative, without '..'")
    return Parsed(scheme, parts["name"], parts.get("version"), parts.get("path"), *_pinned(reference, pin))


def _pinned(reference: str, pin: re.Match[str] | None) -> tuple[str | None, tuple[str, ...]]:
    """The digest and the files of a pin."""
    if pin is None:
        return None, ()
    try:
        files = sorted({checked_name(name) for name in (pin["files"] or "").split(",") if name}, key=os.fsencode)
    except ValueError as error:
        raise ModelReferenceError(f"{reference!r}: {error}") from None
    return pin["sha256"], tuple(files)


def _joined(given: Any) -> Any:
    """A list of mirrors as one string."""
    return " ".join(given) if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given) else given


def _checked(reference: str) -> str:
    try:
        mirrors(reference)
    except ModelReferenceError as error:
        raise ValueError(str(error)) from None
    return reference


ModelReference = Annotated[str, BeforeValidator(_joined), AfterValidator(_checked)]
"""A string in the syntax of :func:`mirrors`, or a list of such strings; nothing is fetched to check it."""
