"""What the reader of a layout says about one recording, before its content is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from spiritlm_core.errors import SourceError
from spiritlm_core.files import encoding_of
from spiritlm_core.intake.files import File, printable, stat_files
from spiritlm_core.intake.rights import NOTHING, Rights

T = TypeVar("T")


def batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """`things` in lists of at most `size`."""
    waiting = iter(things)
    while batch := list(islice(waiting, size)):
        yield batch


@dataclass(frozen=True)
class Draft:
    """One recording, or one stretch of it, as a source describes it."""

    name: str
    uri: str
    file: File | None = None
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    start: float | None = None  # seconds
    end: float | None = None
    channel: int | None = None
    label: str | None = None  # its class
    rights: Rights = NOTHING
    error: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the recording cannot be taken in, if that is known already."""
        return self.error or (self.file.error if self.file else None)


def draft_of(file: File, text: str | None = None, error: str | None = None, speaker: str | None = None) -> Draft:
    """A draft of a whole file."""
    return Draft(printable(file.path), file.uri, file, clean(text), speaker, error=error)


def missing(name: str, uri: str, error: str, text: str | None = None) -> Draft:
    """A draft for a transcript that has no recording."""
    return Draft(printable(name), uri, text=clean(text), error=error)


def located(drafts: Iterable[Draft]) -> Iterator[Draft]:
    """`drafts` with the files at their addresses, where they have none yet; looked for many at a time."""
    for batch in batches(drafts, 100_000):
        sought = {draft.uri for draft in batch if not draft.file and not draft.error}
        files = dict(zip(sought, stat_files([*sought]), strict=True))
        yield from (replace(draft, file=draft.file or files.get(draft.uri)) for draft in batch)


def clean(text: str | None) -> str | None:
    """`text` on one line, null when nothing is left."""
    return " ".join(text.split()) or None if text else None


def decode_text(data: bytes, encoding: str, what: str) -> tuple[str, str | None]:
    """Decode a transcript; a byte order mark wins over `encoding`.

    Returns:
        The text and null, or what could be read of it and the reason why it cannot be used: a guessed
        encoding would put wrong letters into the corpus without anyone noticing.

    Raises:
        SourceError: there is no such encoding.
    """
    encoding = encoding_of(data, encoding)
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise SourceError(f"encoding {encoding!r} of a source: {error}") from error
    except UnicodeDecodeError as error:
        reason = f"{what} is not {encoding} (byte {error.start}): convert it, or set `encoding` of the source"
        return data.decode(encoding, "replace"), reason
    nul = f"{what} holds NUL characters: if it is UTF-16, set `encoding` of the source" if "\0" in text else None
    return text, nul


def decode_lines(data: bytes, encoding: str, what: str) -> list[tuple[int, str, str | None]]:
    """The lines of a shared transcript file as (number, text, reason), so that one bad line costs one recording."""
    whole, reason = decode_text(data, encoding, what)
    if reason is None:
        lines_of = whole.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [(number, line, None) for number, line in enumerate(lines_of, 1)]
    lines = enumerate(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), 1)
    return [(number, *decode_text(line, encoding, f"line {number} of {what}")) for number, line in lines]
