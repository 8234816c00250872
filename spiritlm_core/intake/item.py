"""An item: one recording, or one stretch of it, that ingest was asked to take in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from spiritlm_core.intake.grouping import in_order
from spiritlm_core.intake.rights import FIELDS, NOTHING, Rights
from spiritlm_core.intake.source import MOST_CHANNELS

RECORDINGS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),  # bytes of the file
        pa.field("sha256", pa.string()),
        pa.field("start", pa.float64()),  # seconds in the file; null is its beginning
        pa.field("end", pa.float64()),
        pa.field("channel", pa.int32()),  # null averages the channels
        pa.field("speaker", pa.string()),
        pa.field("language", pa.string()),
        pa.field("text", pa.string()),
        pa.field("label", pa.string()),  # its class, as the source tells
        pa.field("origin", pa.string()),  # "recorded" or "synthetic"
        pa.field("rights", pa.struct([pa.field(name, pa.string()) for name in FIELDS])),
        pa.field("error", pa.string()),  # why it cannot be taken in
    ]
)
"""Input rows of :class:`spiritlm_core.audio.stage.AudioStage`."""


@dataclass(frozen=True)
class Item:
    """One thing to ingest. `key` (see :func:`identified`) covers what its rows are made from, no path and no time."""

    name: str  # printable path within its source
    source_uri: str  # printable, percent-encoded for local files
    language: str
    sha256: str | None = None
    size: int = 0
    start: float | None = None
    end: float | None = None
    channel: int | None = None
    speaker: str | None = None
    text: str | None = None
    label: str | None = None
    origin: str = "recorded"
    rights: Rights = NOTHING  # in no key: it is about the sound, and not in it
    error: str | None = None
    key: str = ""
    recording_id: str = ""

    @property
    def cost(self) -> int:
        """Bytes of audio to work through: of the file, or of its 16 kHz stretch when that is less."""
        if self.start is None or self.end is None:
            return self.size
        return min(self.size, int((self.end - self.start) * 32_000))


def digest(*parts: object) -> str:
    """sha256 (hex) over `parts`; null, text and numbers are told apart, and so are the borders between parts."""
    return hashlib.sha256("\x1f".join(f"{type(part).__name__}={part!r}" for part in parts).encode()).hexdigest()


def identified(item: Item) -> Item:
    """`item` with its identifiers; one that cannot be read is identified by its name and the reason.

    A stretch or a channel that no recording can have is a reason, too.
    """
    if reason := _impossible(item.start, item.end, item.channel):
        item = replace(item, start=None, end=None, channel=None, error=item.error or reason)
    content = (item.sha256, item.start, item.end, item.channel)
    facts = (*content, item.speaker, item.language, item.text, item.label, item.origin)
    key = digest("item", *facts) if item.error is None else digest("bad item", item.name, item.error, *facts)
    recording_id = digest("recording", *content)[:20] if item.error is None and item.sha256 else key[:20]
    return replace(item, key=key, recording_id=recording_id)


def _impossible(start: float | None, end: float | None, channel: int | None) -> str | None:
    if not all(math.isfinite(second) and second >= 0 for second in (start, end) if second is not None):
        return f"the stretch from {start} to {end} s is none of a recording"
    if channel is not None and not 0 <= channel < MOST_CHANNELS:
        return f"no channel {channel}: there may be {MOST_CHANNELS}, counted from 0"
    return None


def reject_duplicates(items: Iterable[Item]) -> list[Item]:
    """Keep one item per recording, the one with a transcript first, and give the others an `error`.

    Two items of the same audio with different transcripts would claim the same utterances, so only one stays.
    """
    ordered = in_order(items)
    kept: dict[str, Item] = {}
    for item in sorted(ordered, key=lambda item: item.text is None):
        kept.setdefault(item.recording_id, item)
    seen: set[str] = set()
    return [_unlike(item, kept[item.recording_id], seen) for item in ordered]


def _unlike(item: Item, first: Item, seen: set[str]) -> Item:
    """`item` itself, or a rejected copy with an identity of its own when `first` has the same recording."""
    error, key = item.error, item.key
    if item is not first and error is None:
        same = "duplicate of" if item.key == first.key else "same audio as, but with other particulars than,"
        error = f"{same} {first.name}"
        key = digest("duplicate", item.name, error, item.key)
    while key in seen:
        key = digest("again", key)
    seen.add(key)
    if key == item.key:
        return item
    return replace(item, key=key, recording_id=key[:20], error=error)
