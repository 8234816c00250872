"""The tables of the lake. Shards of every table but `audio` are aligned row by row with their audio shard.

Every table ends in `reject_stage` and `reject_reason`: null for a good row, else the stage that gave up on
the row and why. A rejected row travels on through the later tables, its payload columns null, its
`reject_*` columns copied.
"""

from __future__ import annotations

import pyarrow as pa

from spiritlm_core.errors import reason_of

SAMPLE_RATE = 16_000
"""Sampling rate of every waveform in the lake, in hertz."""

_REJECT = [pa.field("reject_stage", pa.string()), pa.field("reject_reason", pa.string())]

AUDIO = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("start", pa.float64()),  # seconds in the recording
        pa.field("end", pa.float64()),
        pa.field("duration", pa.float64()),  # seconds
        pa.field("speaker", pa.string()),
        pa.field("language", pa.string()),
        pa.field("split", pa.string()),  # "train" or "held_out"
        pa.field("text", pa.string()),  # transcript of this segment, if known
        pa.field("recording_text", pa.string()),  # of the whole recording, on its first segment, if it has several
        pa.field("audio", pa.binary()),  # FLAC, 16 kHz mono, 16 bit
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string()),
        *_REJECT,
    ]
)

WORD = pa.struct(
    [
        pa.field("word", pa.string()),
        pa.field("start", pa.float64()),  # seconds in the segment
        pa.field("end", pa.float64()),
        pa.field("score", pa.float32()),  # aligner's confidence, null where interpolated
        pa.field("interpolated", pa.bool_()),
    ]
)

WORDS = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("words", pa.list_(WORD)),
        pa.field("text", pa.string()),
        pa.field("text_origin", pa.string()),  # "given" or "asr"
        *_REJECT,
    ]
)

UNITS = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("hubert", pa.list_(pa.int16())),  # 25 Hz, not collapsed
        pa.field("pitch", pa.list_(pa.int8())),  # 12.5 Hz, not collapsed; null for Base
        pa.field("style", pa.list_(pa.int8())),  # 1 Hz; null for Base
        *_REJECT,
    ]
)

SEQUENCES = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("start", pa.float64()),  # seconds in the recording: the order of its segments
        pa.field("duration", pa.float64()),
        pa.field("speaker", pa.string()),
        pa.field("language", pa.string()),
        pa.field("split", pa.string()),
        pa.field("text", pa.string()),
        pa.field("words", pa.list_(pa.string())),
        pa.field("text_ids", pa.list_(pa.int32())),  # token ids of the words, one after the other
        pa.field("text_offsets", pa.list_(pa.int32())),  # word i owns text_ids[o[i]:o[i+1]]; len(words) + 1 entries
        pa.field("speech_ids", pa.list_(pa.int32())),
        pa.field("speech_offsets", pa.list_(pa.int32())),
        pa.field("can_switch", pa.list_(pa.bool_())),  # may the modality change in front of word i?
        pa.field("speech_only", pa.bool_()),  # too few timed words: one "word" holding all the speech, no text
        *_REJECT,
    ]
)

DOCUMENTS = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),  # from content and position
        pa.field("split", pa.string()),  # "train" or "held_out"
        pa.field("text", pa.string()),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_place", pa.int64()),  # line or row of the document in its file, from 1
        *_REJECT,
    ]
)

TEXT = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("text", pa.string()),  # as it was tokenised: one space in front of each word
        pa.field("text_ids", pa.list_(pa.int32())),
        *_REJECT,
    ]
)

Row = dict[str, object]


def rejected(row: Row, stage: str, error: BaseException | str) -> Row:
    """A copy of `row` marked as given up by `stage`."""
    reason = error if isinstance(error, str) else reason_of(error)
    return {**row, "reject_stage": stage, "reject_reason": reason}


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
