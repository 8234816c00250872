"""Whether a recording may be used: its licence, and whether and until when its speaker agreed.

A source says so of all its recordings, ``corpus.yaml`` or a licence file of a folder, a column of one recording; what
is nearer to the recording counts. None of it changes a sound, so it enters no key: what may not be used is rejected.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Any

import yaml
from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import SourceError
from spiritlm_core.files import encoding_of, text_of
from spiritlm_core.intake.files import File, printable
from spiritlm_core.intake.notes import note, some
from spiritlm_core.intake.opening import read_uri

FIELDS = ("licence", "consent", "expires")
ALSO = {"license": "licence", "consent_expires": "expires"}  # what else these are called
UNKNOWN = "unknown"
_NO = frozenset({"no", "none", "false", "0", "refused", "withdrawn", "revoked"})
_YES = "yes, y, true, 1, given, granted, agreed, consented, signed, form, on file"
_SAYS_YES = re.compile(rf"({_YES.replace(', ', '|')})( (on |of )?\d{{4}}-\d\d-\d\d)?", re.IGNORECASE)


class RightsConfig(FrozenConfig):
    """Which recordings may be used. A consent that was refused or has expired always rejects."""

    licences: tuple[str, ...] = Field(
        (),
        description="Licences that may be used, such as CC0-1.0 or CC-BY-*, and `unknown` for none that is known; "
        "empty: any. Other recordings are rejected.",
    )
    consent: bool = Field(
        False,
        description="Reject recordings of which no source says that the speaker agreed, in one of the words of "
        "docs/rights.md, such as yes.",
    )

    def problem(self, rights: Rights) -> str | None:
        """Why a recording may not be used; the reason is counted by its part before the colon."""
        if rights.consent and rights.consent.lower() in _NO:
            return f"no consent: {rights.consent}"
        if rights.expires and date.fromisoformat(rights.expires) < datetime.now(UTC).date():
            return f"consent has expired: on {rights.expires}"
        if self.consent and not rights.consent:
            return "no consent: no source tells of one"
        if self.consent and not _SAYS_YES.fullmatch(rights.consent or ""):
            said = (rights.consent or "")[:60]
            return f"no consent: {said!r} is not one of {_YES}, nor one with a date behind it, signed on 2026-03-01"
        licence = rights.licence or UNKNOWN
        if self.licences and not any(fnmatchcase(licence.lower(), one.lower()) for one in self.licences):
            return f"licence may not be used: {licence}"
        return None


ANY = RightsConfig()


@dataclass(frozen=True)
class Rights:
    """What is said of a recording. `expires` is a date, YYYY-MM-DD, the last day of the consent."""

    licence: str | None = None
    consent: str | None = None
    expires: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Rights:
        """What a row, or a file about a folder, says. Raises ValueError for a list, and for a date that is none."""
        if several := next((name for name in FIELDS if isinstance(said.get(name), list | dict)), None):
            raise ValueError(f"{several}: {str(said[several])[:40]} must be one value")
        values = {name: None if said.get(name) in (None, "") else str(said[name]).strip() for name in FIELDS}
        if isinstance(said.get("consent"), bool):
            values["consent"] = "yes" if said["consent"] else "no"
        licence, expires = values["licence"], values["expires"]
        return cls(licence and (named_licence(licence) or licence), values["consent"], expires and _day(expires))

    def over(self, other: Rights) -> Rights:
        """What is said here, and what `other` says where nothing is."""
        return Rights(*(getattr(self, name) or getattr(other, name) for name in FIELDS))


NOTHING = Rights()


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        raise ValueError(f"expires: {text[:40]!r} is no date such as 2027-12-31") from None


_CREATIVE = re.compile(
    r"(?:attribution|(?:cc\W|/licenses/)by)(?P<nc>\W*(?:non\W?commercial|nc))?"
    r"(?P<more>\W*(?:share\W?alike|sa|no\W?deriv\w*|nd))?\W*(?P<version>\d\.\d)",
    re.IGNORECASE,
)
_OTHERS = {
    "CC0-1.0": re.compile(r"cc0|public domain dedication", re.IGNORECASE),
    "Apache-2.0": re.compile(r"apache\W+(license|licence)?\W*(version)?\W*2", re.IGNORECASE),
    "MIT": re.compile(r"\bmit\b|permission is hereby granted, free of charge", re.IGNORECASE),
}
_HEAD = 4000  # characters of a licence file in which its name is looked for


def named_licence(text: str) -> str | None:
    """The SPDX identifier of the first usual licence that a text names, such as the beginning of a licence file."""
    head = text[:_HEAD]
    if found := _CREATIVE.search(head):
        more = re.sub(r"\W", "", found["more"] or "").lower()
        parts = ["CC-BY", *(["NC"] if found["nc"] else []), *([_short(more)] if more else []), found["version"]]
        return "-".join(parts)
    return next((name for name, pattern in _OTHERS.items() if pattern.search(head)), None)


def _short(more: str) -> str:
    return "SA" if more in ("sharealike", "sa") else "ND"


class FolderRights:
    """What ``corpus.yaml``, and a licence file, say of the recordings beside and below them."""

    def __init__(self, files: Iterable[File]) -> None:
        """Read those among `files`. Raises SourceError if a ``corpus.yaml`` makes no sense."""
        self.used: set[str] = set()
        self._said: dict[str, Rights] = {}
        for file in files:
            if file.name.lower() in _CORPUS or _LICENCE.fullmatch(file.name):
                self.used.add(file.uri)
                told, there = _read(file), self._said.get(file.folder, NOTHING)
                self._said[file.folder] = told.over(there) if file.name.lower() in _CORPUS else there.over(told)

    def of(self, folder: str) -> Rights:
        """What is said of the recordings in `folder`, by itself and by those above it."""
        rights = NOTHING
        while self._said:
            rights = rights.over(self._said.get(folder, NOTHING))
            if not folder:
                break
            folder = folder.rpartition("/")[0]
        return rights


_CORPUS = ("corpus.yaml", "corpus.yml")
_LICENCE = re.compile(r"(licen[cs]e|copying)(\.(txt|md))?", re.IGNORECASE)


def _read(file: File) -> Rights:
    data = read_uri(file.uri)
    if file.name.lower() not in _CORPUS:
        return Rights(named_licence(data.decode(encoding_of(data), "replace")))
    shown = printable(file.path)
    try:
        told = yaml.safe_load(text_of(data, shown))
        said = {_field(name): told[name] for name in told} if isinstance(told, dict) else None
        rights = Rights.of(said or {})
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise SourceError(f"{shown}: {' '.join(str(error).split())}") from error
    if said is None:
        raise SourceError(f"{shown}: it must have lines such as licence: CC-BY-4.0")
    if others := [name for name in said if name not in FIELDS]:
        note(f"{shown}: not used: {some(others)}; only {', '.join(FIELDS)} are")
    return rights


def _field(name: object) -> str:
    return ALSO.get(str(name).lower(), str(name).lower())


def rights_in(lineage: Mapping[str, Any]) -> dict[str, Rights]:
    """recording_id → what is said of it; the reverse of :func:`spiritlm_core.intake.item.said_of`."""
    groups = lineage.get("rights", ())
    return {one: Rights(*(group[name] for name in FIELDS)) for group in groups for one in group["recordings"]}


def hours_by_licence(said: Iterable[tuple[str | None, float]]) -> dict[str, float]:
    """Hours under each licence, in the order of their names, of pairs of a licence (None: unknown) and seconds."""
    hours: dict[str, float] = defaultdict(float)
    for licence, seconds in said:
        hours[licence or UNKNOWN] += seconds / 3600
    return {name: round(value, 4) for name, value in sorted(hours.items())}
