"""An item: one recording, or one stretch of it, that ingest was asked to take in; a row of the table that is listed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.intake.grouping import in_order
from spiritlm_core.intake.rights import FIELDS
from spiritlm_core.intake.source import MOST_CHANNELS
from spiritlm_core.lake.schema import Row

RECORDINGS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # covers what its rows are made from, no path and no time
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # printable path within its source
        pa.field("source_uri", pa.string(), nullable=False),  # printable, percent-encoded for local files
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
        pa.field("rights", pa.struct([pa.field(name, pa.string()) for name in FIELDS])),  # in no key: about the sound
        pa.field("error", pa.string()),  # why it cannot be taken in
    ]
)
"""Input rows of :class:`spiritlm_core.audio.stage.AudioStage`."""
Stretch = tuple[float | None, float | None, int | None]  # start, end, channel


def digest(*parts: object) -> str:
    """sha256 (hex) over `parts`; null, text and numbers are told apart, and so are the borders between parts."""
    return _digest(_joined(*parts))


def _joined(*parts: object) -> str:
    return "\x1f".join([f"{type(part).__name__}={part!r}" for part in parts])


def _digest(joined: str) -> str:
    return hashlib.sha256(joined.encode()).hexdigest()


_ITEM, _RECORDING = _joined("item"), _joined("recording")


def identifiers(
    name: str, error: str | None, sha256: str | None, stretch: Stretch, facts: Sequence[str | None]
) -> tuple[str, str]:
    """`key` and `recording_id`; an item that cannot be read is identified by its name and the reason.

    `facts` are speaker, language, text, label and origin.
    """
    content = _joined(sha256, *stretch)
    what = _ITEM if error is None else _joined("bad item", name, error)
    key = _digest(f"{what}\x1f{content}\x1f{_joined(*facts)}")
    is_good = error is None and sha256
    return key, (_digest(f"{_RECORDING}\x1f{content}") if is_good else key)[:20]


def impossible(start: float | None, end: float | None, channel: int | None) -> str | None:
    """Why no recording can have such a stretch, or such a channel; null where it can."""
    if not 0 <= (start or 0.0) < math.inf or not 0 <= (end or 0.0) < math.inf:
        return f"the stretch from {start} to {end} s is none of a recording"
    if channel is not None and not 0 <= channel < MOST_CHANNELS:
        return f"no channel {channel}: there may be {MOST_CHANNELS}, counted from 0"
    return None


def said_of(items: pa.Table) -> dict[str, Any]:
    """What is said of the recordings among `items`, for the lineage of their table: ids by licence, consent, expiry."""
    if "rights" not in items.column_names:
        return {}
    told = pa.table([*items["rights"].combine_chunks().flatten(), items["recording_id"]], [*FIELDS, "recordings"])
    told = told.filter(reduce(pc.or_, (pc.is_valid(told[name]) for name in FIELDS)))
    groups = told.group_by(list(FIELDS)).aggregate([("recordings", "list")]).rename_columns(told.column_names)
    rows = [{**group, "recordings": sorted(group["recordings"])} for group in groups.to_pylist()]
    return {"rights": sorted(rows, key=lambda group: group["recordings"])} if rows else {}


def reject_duplicates(items: pa.Table) -> pa.Table:
    """Keep one item per recording, the one with a transcript first, and give the others an `error`.

    Two items of the same audio with different transcripts would claim the same utterances, so only one stays. The
    rows come in another order.
    """
    counts = pc.value_counts(items["recording_id"])
    several = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    alike = pc.is_in(items["recording_id"], value_set=several)
    while several:
        told = pa.Table.from_pylist(_told_apart(in_order(items.filter(alike))), items.schema)
        others = items.filter(pc.invert(alike))
        taken = pc.is_in(others["key"], value_set=told["key"].combine_chunks())  # another copy is called so, too
        if not pc.any(taken).as_py():
            return pa.concat_tables([others, told])
        alike = pc.or_(alike, pc.is_in(items["key"], value_set=others["key"].filter(taken).combine_chunks()))
    return items


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows of which some are of one recording, each with a key of its own."""
    kept: dict[object, Row] = {}
    for row in sorted(rows, key=lambda row: row["text"] is None):
        kept.setdefault(row["recording_id"], row)
    seen: set[object] = set()
    return [_unlike(row, kept[row["recording_id"]], seen) for row in rows]


def _unlike(row: Row, first: Row, seen: set[object]) -> Row:
    """`row` itself, or a rejected copy with an identity of its own when `first` has the same recording."""
    error, key = row["error"], row["key"]
    if row is not first and error is None:
        same = "duplicate of" if key == first["key"] else "same audio as, but with other particulars than,"
        error = f"{same} {first['name']}"
        key = digest("duplicate", row["name"], error, key)
    while key in seen:
        key = digest("again", key)
    seen.add(key)
    return row if key == row["key"] else {**row, "key": key, "recording_id": str(key)[:20], "error": error}
