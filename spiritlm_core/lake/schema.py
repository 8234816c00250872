"""What all tables have in common. Shards of every table but `audio` are aligned row by row with their audio shard.

Every table ends in `reject_stage` and `reject_reason`: null for a good row, else the stage that gave up on
the row and why. A rejected row travels on through the later tables, its payload columns null, its
`reject_*` columns copied.
"""

import pyarrow as pa

from spiritlm_core.errors import reason_of

SAMPLE_RATE = 16_000  # sampling rate of every waveform in the lake, in hertz
SYNTHETIC = "synthetic"  # what the column `origin` says where a machine spoke
REJECT = [pa.field("reject_stage", pa.string()), pa.field("reject_reason", pa.string())]
"""The last columns of every table; the schema of a table stands with the stage that writes it."""

AMENDED = {"speakers": "audio"}
"""A table that stands for another one, which it was made from: it has some columns anew and lacks the others."""


Row = dict[str, object]


def rejected(row: Row, stage: str, error: BaseException | str) -> Row:
    """A copy of `row` marked as given up by `stage`."""
    reason = error if isinstance(error, str) else reason_of(error)
    return {**row, "reject_stage": stage, "reject_reason": reason}


def passed_on(row: Row) -> Row:
    """What every row of a later table begins with: whose it is, and which stage has given up on it, if one has."""
    return {name: row[name] for name in ("utterance_id", "reject_stage", "reject_reason")}


def is_rejected(row: Row) -> bool:
    """Whether an earlier stage gave up on `row`."""
    return row.get("reject_stage") is not None


def table_of(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Rows to a table; a key that is missing from a row becomes null, an unknown key is an error."""
    known = set(schema.names)
    for row in rows:
        if unknown := set(row) - known:
            raise KeyError(f"columns {sorted(unknown)} are not in the schema {sorted(known)}")
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}, schema
    )
