"""One shard: an immutable Parquet object whose footer proves what it is and how it was made."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import shard_key

_FOOTER = b"spiritlm"


@dataclass(frozen=True)
class ShardStats:
    """What happened to the rows of one shard. ``rows_in == rows_out + rejected``.

    `rows_in` counts rows that no earlier stage had rejected, `upstream` those that one had; the shard
    holds ``rows_in + upstream`` rows. `seconds` is computing time, `audio_seconds` the duration of the good rows.
    """

    rows_in: int
    rows_out: int
    rejected: int
    upstream: int
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    audio_seconds: float = 0.0


@dataclass(frozen=True)
class ShardFooter:
    """The lineage of a shard, as written into its Parquet footer."""

    key: str
    table: str
    stage: str
    stage_version: int
    identity: str
    config: Any
    models: dict[str, str]
    parents: list[str]
    members: list[str]
    code_version: str
    stats: ShardStats


def code_version() -> str:
    """The version of this package."""
    try:
        return version("spiritlm-pipeline")
    except PackageNotFoundError:
        return "unknown"


def count_rows(table: pa.Table, stage: str, seconds: float) -> ShardStats:
    """The statistics of a stage's output table."""
    stages = table.column("reject_stage").to_pylist()
    reasons = table.column("reject_reason").to_pylist()
    mine = Counter(_reason_group(r) for s, r in zip(stages, reasons, strict=True) if s == stage)
    upstream = sum(1 for s in stages if s is not None and s != stage)
    rejected = sum(mine.values())
    rows_in = table.num_rows - upstream
    good = [s is None for s in stages]
    return ShardStats(
        rows_in=rows_in,
        rows_out=rows_in - rejected,
        rejected=rejected,
        upstream=upstream,
        reasons=dict(sorted(mine.items())),
        seconds=round(seconds, 3),
        audio_seconds=round(_audio_seconds(table, good), 3),
    )


def _reason_group(reason: str | None) -> str:
    """Reasons are counted by their part before the first colon; the rest names the item."""
    return (reason or "no reason given").split(":", 1)[0][:120]


def _audio_seconds(table: pa.Table, good: list[bool]) -> float:
    if "duration" not in table.column_names:
        return 0.0
    durations = table.column("duration").to_pylist()
    return float(sum(d for d, ok in zip(durations, good, strict=True) if ok and d))


def encode_shard(table: pa.Table, footer: ShardFooter) -> bytes:
    """The shard as Parquet bytes: zstd, page checksums, lineage in the footer."""
    text = json.dumps(asdict(footer), sort_keys=True, ensure_ascii=True)
    metadata = {**(table.schema.metadata or {}), _FOOTER: text.encode()}
    buffer = io.BytesIO()
    # Small row groups keep a reader's memory flat when rows carry half a megabyte of audio.
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        compression="zstd",
        row_group_size=1024,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def read_footer(stream: BinaryIO, name: str) -> ShardFooter:
    """The footer of a shard, without reading its rows. Raises LakeError if it is not a shard."""
    try:
        metadata = pq.read_schema(stream).metadata or {}
        values = json.loads(metadata[_FOOTER])
        return ShardFooter(**{**values, "stats": ShardStats(**values["stats"])})
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise LakeError(f"{name} is not a shard of this lake ({error}); run `spiritlm lake verify`") from error


def read_rows(stream: BinaryIO, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard. Raises LakeError if the file is damaged."""
    try:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        return file.read(columns=None if columns is None else list(columns)).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise LakeError(f"{name} is damaged ({error}); delete it and run again") from error


def check_footer(footer: ShardFooter, key: str, rows: int) -> list[str]:
    """What is wrong with a shard called `key` that holds `rows` rows; empty if nothing."""
    problems = []
    expected = shard_key(footer.identity, footer.parents)
    if footer.key != key or expected != key:
        problems.append(f"its name says {key[:12]}, its footer gives {expected[:12]}")
    counted = footer.stats.rows_in + footer.stats.upstream
    if counted != rows:
        problems.append(f"it holds {rows} rows, its footer says {counted}")
    return problems
