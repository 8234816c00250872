"""One shard: an immutable Parquet object whose footer proves what it is and how it was made."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import BLANK, CURE, STRICT, Digest, from_json, is_sealed, seal, shard_key, to_json

_FOOTER = b"spiritlm"
_CHECKSUM = b"spiritlm.sha256"
_IN_A_LIST = re.compile(r"\.list\.(element|item)")
_MARK = _CHECKSUM + b"\x18@"  # Thrift writes these two bytes in front of a string of 64


@dataclass(frozen=True)
class ShardStats:
    """What happened to the rows of one shard. ``rows_in == rows_out + rejected``.

    `rows_in` counts rows that no earlier stage had rejected, `upstream` those that one had; the shard
    holds ``rows_in + upstream`` rows. `seconds` is computing time, `audio_seconds` the duration of the good rows.
    """

    __pydantic_config__ = STRICT

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

    __pydantic_config__ = STRICT

    key: Digest
    table: str
    stage: str
    stage_version: int
    identity: Digest
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
    mine = Counter(reason_group(r) for s, r in zip(stages, reasons, strict=True) if s == stage)
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


def reason_group(reason: str | None) -> str:
    """Reasons are counted by their part before the first colon; the rest names the item."""
    return (reason or "no reason given").split(":", 1)[0][:120]


def _audio_seconds(table: pa.Table, good: list[bool]) -> float:
    if "duration" not in table.column_names:
        return 0.0
    durations = table.column("duration").to_pylist()
    return float(sum(d for d, ok in zip(durations, good, strict=True) if ok and d))


def encode_shard(table: pa.Table, footer: ShardFooter) -> bytes:
    """The shard as Parquet bytes, its lineage in the footer."""
    # Small row groups keep a reader's memory flat when rows carry half a megabyte of audio.
    return encode_parquet(table, to_json(footer), 1024)


def encode_parquet(table: pa.Table, about: bytes, group: int = 2**20) -> bytes:
    """Parquet bytes in groups of so many rows: zstd, page checksums, `about` and the checksum of all bytes behind."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table, row_group_size=group)
        writer.add_key_value_metadata({_FOOTER: about, _CHECKSUM: BLANK})
    return seal(buffer.getvalue(), _MARK)


def check_shard(data: bytes, name: str) -> None:
    """Raise LakeError if the checksum of a shard is wrong, or got lost."""
    about = _metadata(pa.BufferReader(data), name).metadata or {}
    if not is_sealed(data, name, _MARK) and is_sealed(about.get(_FOOTER, b""), name):
        raise LakeError(f"{name} is damaged: the name of its checksum is; {CURE}")


def _metadata(source: pa.NativeFile, name: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(source)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise LakeError(f"{name} is damaged or not a shard of this lake ({error}); {CURE}") from error


def read_footer(source: pa.NativeFile, name: str) -> ShardFooter:
    """The footer of a shard, without reading its rows. Raises LakeError if it is not a shard."""
    return from_json(ShardFooter, read_about(source, name), name)


def read_about(source: pa.NativeFile, name: str) -> bytes:
    """The JSON that :func:`encode_parquet` was given. Raises LakeError if there is none."""
    metadata = _metadata(source, name).metadata or {}
    if _FOOTER not in metadata:
        raise LakeError(f"{name} is not a shard of this lake; {CURE}")
    return metadata[_FOOTER]


def count_values(source: pa.NativeFile, name: str) -> Counter[str]:
    """How many values each column holds, see :class:`Loader`, by the footer. Raises LakeError if there is none."""
    metadata = _metadata(source, name)
    counts = Counter[str]()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(metadata.num_columns)):
            missing = chunk.statistics.null_count if chunk.statistics else 0  # empty lists, too
            counts[_IN_A_LIST.sub("", chunk.path_in_schema)] += chunk.num_values - missing
    return counts


def read_rows(source: pa.NativeFile, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard. Raises LakeError if the file is damaged.

    It is read in this thread: one of Arrow's that still lets go of a buffer of Python's while the process ends would
    wait for the interpreter, which is gone, and abort the process.
    """
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        rows = file.read(columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise LakeError(f"{name} is damaged ({error}); {CURE}") from error
    return rows.replace_schema_metadata(None)


def check_footer(footer: ShardFooter, rows: int) -> list[str]:
    """What is wrong with the footer of a shard that holds `rows` rows; empty if nothing."""
    problems = []
    expected = shard_key(footer.identity, footer.parents)
    if footer.key != expected:
        problems.append(f"its key is {footer.key[:12]}, its parents give {expected[:12]}")
    counted = footer.stats.rows_in + footer.stats.upstream
    if counted != rows:
        problems.append(f"it holds {rows} rows, its footer says {counted}")
    return problems
