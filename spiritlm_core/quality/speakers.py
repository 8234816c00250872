"""The table `speakers`: who is guessed to speak in each segment; in the place of `audio` where the recipe says so."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from spiritlm_core.lake.schema import REJECT, SYNTHETIC, Row, rejected, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.quality.config import SpeakersStageConfig
from spiritlm_core.quality.voices import Voices, grouped
from spiritlm_core.split import draw_split

SPEAKERS = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("duration", pa.float64()),
        pa.field("speaker_guess", pa.string()),  # null where the source names the speaker
        pa.field("guess_similarity", pa.float32()),  # mean cosine with the recordings of that voice
        pa.field("guess_margin", pa.float32()),  # how much less the next voice has
        pa.field("guess_new", pa.bool_()),  # a voice that was not there when voices were told apart
        pa.field("speaker", pa.string()),  # that of `audio`, or the guess with `use: [style]`
        pa.field("split", pa.string()),  # that of `audio`, or by the guess with `use: [split]`
        *REJECT,
    ]
)
_COPIED = ("utterance_id", "duration", "speaker", "split", "reject_stage", "reject_reason")


class SpeakersStage(TableStage):
    """The likest of the ``voices`` for each recording, or a voice of its own; columns of `audio` that follow from it.

    New recordings change no guess of others: voices stay what they are, and those that are none of them are told
    apart among the recordings of their own shard. Such a new voice is never held out, as it may speak in others, too;
    and if the one that it is likest is held out, it is rejected, as it may be the same.
    """

    name: ClassVar[str] = "speakers"
    about: ClassVar[str] = "who is guessed to speak, where nobody says"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio", (*_COPIED, "recording_id", "origin")),
        TableInput("dvectors", ("recording_id", "dvector")),
    )
    schema: ClassVar[pa.Schema] = SPEAKERS
    config: SpeakersStageConfig

    @cached_property
    def _voices(self) -> Voices:
        """Read once for all shards."""
        return Voices.load(self.models["voices"])

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row per segment; what an earlier stage rejected has no guess."""
        audio, heard = (table.to_pylist() for table in tables)
        guesses = self._guesses({row["recording_id"]: row["dvector"] for row in heard if row["dvector"]})
        return table_of([self._row(row, guesses.get(row["recording_id"])) for row in audio], SPEAKERS)

    def _guesses(self, dvectors: dict[str, list[float]]) -> dict[str, Row]:
        """recording_id → its columns of `SPEAKERS`, and the voice that it is likest or ``side``, if there is any."""
        ids, vectors = [*dvectors], np.array([*dvectors.values()], np.float32)
        if not ids:
            return {}
        known = self._voices
        places, cosines, margins = known.nearest(vectors)
        new = cosines < known.similarity
        names = np.array([*known.names, ""], object)[places]
        sides = np.array([*known.sides, ""], object)[places]
        for name, members in grouped(
            vectors[new], [one for one, is_new in zip(ids, new, strict=True) if is_new], known.similarity
        ):
            names[np.flatnonzero(new)[members]] = name
        columns = ("speaker_guess", "side", "guess_similarity", "guess_margin", "guess_new")
        told = zip(names, sides, cosines.tolist(), margins.tolist(), new.tolist(), strict=True)
        return {one: dict(zip(columns, values, strict=True)) for one, values in zip(ids, told, strict=True)}

    def _row(self, segment: dict[str, Any], guess: Row | None) -> Row:
        row = {name: segment[name] for name in _COPIED}
        if segment["reject_stage"] is not None or segment["speaker"] is not None:
            return row
        if guess is None:
            return {**row, **({"split": "train"} if self._draws(segment) else {})}
        row |= {name: value for name, value in guess.items() if name != "side"}
        if "style" in self.config.use:
            row["speaker"] = guess["speaker_guess"]
        return self._on_its_side(row, str(guess["side"])) if self._draws(segment) else row

    def _draws(self, segment: Row) -> bool:
        return "split" in self.config.use and segment["origin"] != SYNTHETIC

    def _on_its_side(self, row: Row, side: str) -> Row:
        """All of a voice is on one side; what may be another one than those in train is there, too."""
        drawn = draw_split(side, self.config.split_salt, self.config.held_out_share) if side else "train"
        if row["guess_new"] and drawn == "held_out":
            row = rejected(
                row, self.name, f"new voice like one that is held out: {side}, {row['guess_similarity']:.2f}"
            )
        return {**row, "split": "train" if row["guess_new"] else drawn}
