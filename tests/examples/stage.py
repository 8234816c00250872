"""The stage ``loudness``: how loud each segment is."""

from typing import Any

import numpy as np
import pyarrow as pa

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.lake.schema import REJECT, Row, is_rejected, passed_on, table_of
from spiritlm_core.lake.stage import TableInput, TableStage

LOUDNESS = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("dbfs", pa.float64()),  # level in dB of full scale
        *REJECT,
    ]
)


class LoudnessStage(TableStage):
    """How loud each segment is: the root of its mean square."""

    name = "loudness"
    about = "level of each segment"
    version = 1
    inputs = (TableInput("audio", ("utterance_id", "audio", "reject_stage", "reject_reason")),)
    schema = LOUDNESS

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row per segment; rejected ones stay what they are."""
        return table_of([self._row(segment) for segment in tables[0].to_pylist()], LOUDNESS)

    def _row(self, segment: dict[str, Any]) -> Row:
        row = passed_on(segment)
        return row if is_rejected(segment) else self.tried(row, lambda: self._level(segment))

    def _level(self, segment: dict[str, Any]) -> Row:
        power = float(np.mean(np.square(decode_flac(segment["audio"]))))
        return {"dbfs": 10 * np.log10(max(power, 1e-10))}
