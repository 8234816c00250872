"""The stage `quality`: what a recipe can filter by, measured on every segment."""

from functools import cached_property
from typing import Any, ClassVar, cast

import pyarrow as pa

from spiritlm_core.lake.schema import REJECT, Row, is_rejected, passed_on, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.quality.judges import Judge, judges

QUALITY = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("duration", pa.float64()),  # seconds
        pa.field("level", pa.float32()),  # dB of full scale
        pa.field("clipping", pa.float32()),  # share of the samples at full scale
        pa.field("dc", pa.float32()),  # mean of the samples
        pa.field("silence", pa.float32()),  # share of the time
        pa.field("bandwidth", pa.float32()),  # Hz
        pa.field("snr", pa.float32()),  # dB
        pa.field("speech", pa.float32()),  # share of the time, by the model of voice activity
        pa.field("rate", pa.float32()),  # words a second, null without words
        pa.field("confidence", pa.float32()),  # the aligner's, mean over the words that it found
        pa.field("dnsmos", pa.float32()),  # 1 to 5; this one and those below are null where no model is given
        pa.field("dnsmos_signal", pa.float32()),
        pa.field("dnsmos_background", pa.float32()),
        pa.field("language", pa.string()),  # that is heard
        pa.field("language_confidence", pa.float32()),
        pa.field("wer", pa.float32()),  # of the given transcript, by a recogniser
        pa.field("fingerprint", pa.list_(pa.uint32())),
        *REJECT,
    ]
)


class QualityStage(TableStage):
    """How good each segment is. Models: ``dnsmos``, ``language`` and ``recogniser``, each if it is wanted."""

    name: ClassVar[str] = "quality"
    about: ClassVar[str] = "level, noise, bandwidth and more of each segment"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio", ("utterance_id", "duration", "language", "audio")),
        TableInput("words"),
    )
    schema: ClassVar[pa.Schema] = QUALITY

    def setup(self) -> None:
        """Load the models."""
        _ = self._judges

    @cached_property
    def _judges(self) -> list[Judge]:
        return judges(self.models)

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row per segment; one that was rejected before is not measured."""
        audio, words = (table.to_pylist() for table in tables)
        return table_of([self._row({**row, **more}) for row, more in zip(audio, words, strict=True)], QUALITY)

    def _row(self, segment: dict[str, Any]) -> Row:
        base = passed_on(segment)
        return base if is_rejected(segment) else self.tried(base, lambda: self._measured(segment))

    def _measured(self, segment: dict[str, Any]) -> Row:
        from spiritlm_core.audio.codec import decode_flac
        from spiritlm_core.quality.signal import measure

        waveform = decode_flac(segment["audio"])
        row = {"duration": segment["duration"], **measure(waveform), **of_words(segment["words"] or [])}
        for judge in self._judges:
            row |= judge(waveform, segment)
        return row


def of_words(words: list[dict[str, Any]]) -> Row:
    """Words a second from the first to the last, and the aligner's confidence, of those that it found."""
    found = [word for word in words if not word["interpolated"] and word["score"] is not None]
    seconds = words[-1]["end"] - words[0]["start"] if words else 0.0
    scores = [cast("float", word["score"]) for word in found]
    return {
        "rate": len(words) / seconds if seconds > 0 else None,
        "confidence": sum(scores) / len(scores) if scores else None,
    }
