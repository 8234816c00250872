"""The `units` table: every row of `audio` turned into unit streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pyarrow as pa

from spiritlm_core.errors import is_machine_error
from spiritlm_core.lake.schema import UNITS, Row, is_rejected, rejected, table_of
from spiritlm_core.lake.stage import Resources, TableInput, TableStage
from spiritlm_core.units.config import UnitsConfig

if TYPE_CHECKING:
    from spiritlm_core.units.extractor import UnitExtractor
    from spiritlm_core.units.types import Units

_COLUMNS = ("utterance_id", "speaker", "audio", "reject_stage", "reject_reason")


class UnitsStage(TableStage):
    """HuBERT units, and with models in the roles ``pitch`` and ``style`` (Expressive) these streams too."""

    name = "units"
    version = 1
    inputs = (TableInput("audio", _COLUMNS),)
    schema = UNITS
    resources = Resources(num_cpus=1.0)
    config: UnitsConfig
    _extractor: UnitExtractor

    def setup(self) -> None:
        """Load the models."""
        from spiritlm_core.units.extractor import UnitExtractor

        self._extractor = UnitExtractor(self.models, self.config)

    def process(self, *tables: pa.Table) -> pa.Table:
        """One output row per audio row; a clip that cannot be encoded becomes a rejected row."""
        sources: list[Row] = tables[0].to_pylist()
        outcomes = iter(self._attempt([source for source in sources if not is_rejected(source)]))
        return table_of([_row(source, None if is_rejected(source) else next(outcomes)) for source in sources], UNITS)

    def _attempt(self, sources: list[Row]) -> list[Units | Exception]:
        """Units of each row, or the error that row causes: after an error in a batch, each row is tried alone."""
        try:
            return [*self._encode(sources)]
        except Exception as error:
            if is_machine_error(error):
                raise
            if len(sources) == 1:
                return [error]
        return [outcome for source in sources for outcome in self._attempt([source])]

    def _encode(self, sources: list[Row]) -> list[Units]:
        from spiritlm_core.audio.codec import decode_flac

        waveforms = [decode_flac(cast("bytes", source["audio"])) for source in sources]
        return self._extractor.encode(waveforms, [cast("str | None", source["speaker"]) for source in sources])


def _row(source: Row, outcome: Units | Exception | None) -> Row:
    row = {name: source[name] for name in ("utterance_id", "reject_stage", "reject_reason")}
    if outcome is None:
        return row
    if isinstance(outcome, Exception):
        return rejected(row, UnitsStage.name, outcome)
    return {**row, "hubert": outcome.hubert, "pitch": outcome.pitch, "style": outcome.style}
