"""The artifact `duplicates`: which segments hold the same sound as another one, which is kept."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.intake.files import local_path, printable
from spiritlm_core.lake.stage import ArtifactStage, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.quality.fingerprint import Match, Print, matches

OVERLAP, ERRORS = 0.8, 0.3
"""Least share of the shorter segment that lies on the other one, and the largest share of bits that differ there."""
SHORT, SHORT_ERRORS = 64, 0.2
"""Of fewer values than this, 1.3 seconds of sound, fewer may differ: among many words of a syllable some are near."""

DUPLICATES = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("kept", pa.string(), nullable=False),  # utterance_id of the one that stays
        pa.field("overlap", pa.float32()),
        pa.field("errors", pa.float32()),
        pa.field("reason", pa.string()),
    ]
)
_AUDIO = ("utterance_id", "split", "text", "duration", "source_uri")
_PRINTS = ("utterance_id", "fingerprint", "reject_stage")


class DuplicatesStage(ArtifactStage):
    """Lays segments over each other that share parts of their fingerprints; writes ``duplicates.parquet``.

    Of two that sound alike one stays: that which is held out, so that nothing heard in training is judged; then that
    with a transcript, then the longer one.
    """

    name: ClassVar[str] = "duplicates"
    about: ClassVar[str] = "segments that sound like another one"
    version: ClassVar[int] = 2
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("audio", _AUDIO), TableInput("quality", _PRINTS))

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Compare all segments; see :class:`ArtifactStage`."""
        progress(0.0, "reading fingerprints")
        rows, prints = _segments(tables)
        progress(0.3, f"comparing {len(rows)} segments")
        found = duplicates(prints)
        told = [_row(rows[place], rows[kept], match) for place, (kept, match) in found.items()]
        pq.write_table(pa.Table.from_pylist(told, DUPLICATES), out / "duplicates.parquet")
        hours = sum(rows[place]["duration"] for place in found) / 3600
        return {"segments": len(rows), "duplicates": len(found), "hours": round(hours, 4)}


def _segments(tables: Mapping[str, TableView]) -> tuple[list[dict[str, Any]], list[Print]]:
    """The segments that were measured, with their fingerprints; the first of those that sound alike is to stay."""
    rows = {row["utterance_id"]: row for row in tables["audio"].read(_AUDIO).to_pylist()}
    prints: dict[str, Print] = {}
    for good in tables["quality"].good(("utterance_id", "fingerprint")):
        values = [values.values.to_numpy() for values in good["fingerprint"]]
        prints.update(zip(good["utterance_id"].to_pylist(), values, strict=True))
    ordered = sorted((rows[utterance] for utterance in prints), key=_rank)
    return ordered, [prints[row["utterance_id"]] for row in ordered]


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["split"] != "held_out", row["text"] is None, -row["duration"], row["utterance_id"]


def duplicates(prints: Sequence[Print]) -> dict[int, tuple[int, Match]]:
    """Place of each print that sounds like an earlier one that stays → the first such one, and how they match."""
    earlier: dict[int, dict[int, Match]] = defaultdict(dict)
    for match in sorted(matches(prints), key=lambda match: -match.errors):  # the best of a pair is kept
        if match.overlap >= OVERLAP and match.errors <= (ERRORS if match.values >= SHORT else SHORT_ERRORS):
            first, second = sorted((match.first, match.second))
            earlier[second][first] = match
    found: dict[int, tuple[int, Match]] = {}
    for place in sorted(earlier):
        if staying := [first for first in earlier[place] if first not in found]:
            found[place] = (min(staying), earlier[place][min(staying)])
    return found


def _row(row: Mapping[str, Any], kept: Mapping[str, Any], match: Match) -> dict[str, Any]:
    other = "another segment" if row["split"] == kept["split"] else "what is held out"
    return {
        "utterance_id": row["utterance_id"],
        "kept": kept["utterance_id"],
        "overlap": np.float32(match.overlap),
        "errors": np.float32(match.errors),
        "reason": f"same sound as {other}: {kept['utterance_id']} in {printable(local_path(kept['source_uri']))}",
    }
