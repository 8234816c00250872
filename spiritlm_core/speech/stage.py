"""The tables `units` and `copies`: every row of `audio` turned into unit streams, as it is and otherwise heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import pyarrow as pa

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import Rejection, SpiritLMError, attempt
from spiritlm_core.lake.schema import REJECT, SAMPLE_RATE, SYNTHETIC, Row, is_rejected, passed_on, rejected, table_of
from spiritlm_core.lake.stage import Resources, TableInput, TableStage
from spiritlm_core.speech.config import CopiesStageConfig, UnitsStageConfig
from spiritlm_core.speech.copies import Change, changes_of
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.speech.types import Units

if TYPE_CHECKING:
    from spiritlm_core.speech.extractor import UnitExtractor

_STREAMS = [
    pa.field("hubert", pa.list_(pa.int16())),  # 25 Hz, not collapsed
    pa.field("pitch", pa.list_(pa.int8())),  # 12.5 Hz, not collapsed; null for Base
    pa.field("style", pa.list_(pa.int8())),  # 1 Hz; null for Base
]
UNITS = pa.schema([pa.field("utterance_id", pa.string(), nullable=False), *_STREAMS, *REJECT])
_CHANGE = [
    pa.field("start", pa.float64()),  # second t of the copy was second start + speed t of the recording
    pa.field("speed", pa.float64()),
    pa.field("room", pa.int8()),  # number of the room that it is heard in; 0: none
]
COPIES = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("copies", pa.list_(pa.struct([*_CHANGE, *_STREAMS]))),  # none of what is held out
        *REJECT,
    ]
)


_COLUMNS = ("utterance_id", "speaker", "duration", "audio", "reject_stage", "reject_reason")
_GROUP_SECONDS = 600.0
_GPU_DECODERS = 4  # one thread decodes some 3,000 audio seconds a second, less than a GPU encodes

Group: TypeAlias = tuple[list[int], "list[Waveform | Exception]"]
Outcome: TypeAlias = "Units | Exception"


class UnitsStage(TableStage):
    """HuBERT units, and with models in the roles ``pitch`` and ``style`` (Expressive) these streams too."""

    name = "units"
    about = "HuBERT, pitch and style units"
    version = 2
    inputs = (TableInput("audio", _COLUMNS),)
    schema = UNITS
    resources = Resources(num_cpus=1.0)
    config: UnitsStageConfig
    _extractor: UnitExtractor

    def setup(self) -> None:
        """Load the models."""
        from spiritlm_core.speech.extractor import UnitExtractor

        self._extractor = UnitExtractor(self.models, self.config.sizes, precision=self.config.precision)

    def process(self, *tables: pa.Table) -> pa.Table:
        """One output row per audio row; a clip that cannot be encoded becomes a rejected row.

        Clips are encoded in groups of like length, and the next group is decoded meanwhile.
        """
        sources: list[Row] = tables[0].to_pylist()
        outcomes: dict[int, Outcome] = {}
        for group, clips in self._decoded(sources, [_seconds(source) for source in sources]):
            outcomes.update(zip(group, self._encode(clips, _speakers(sources, group)), strict=True))
        return table_of([_row(source, outcomes.get(i)) for i, source in enumerate(sources)], UNITS)

    def _decoded(self, sources: list[Row], seconds: list[float | None]) -> Iterator[Group]:
        """Places and waveforms of the rows that have `seconds`, some minutes at a time."""
        groups = grouped(seconds, _GROUP_SECONDS)
        threads = 1 if self._extractor.device == "cpu" else _GPU_DECODERS
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            ahead = deque([self._decoding(pool, sources, group) for group in groups[:1]])
            following: list[list[int]] = [*groups[1:], []][: len(groups)]
            for group, after in zip(self.counted(groups), following, strict=True):
                ahead.append(self._decoding(pool, sources, after))
                yield group, [clip.result() for clip in ahead.popleft()]

    def _decoding(self, pool: Executor, sources: list[Row], group: list[int]) -> list[Future[Waveform | Exception]]:
        return [pool.submit(self._decode, sources[index]) for index in group]

    def _decode(self, source: Row) -> Waveform | Exception:
        return attempt(partial(decode_flac, cast("bytes", source["audio"])))

    def _encode(self, clips: list[Waveform | Exception], speakers: list[str | None]) -> list[Outcome]:
        """Units of each clip, or the error it causes."""

        def encode(places: list[int]) -> list[Units]:
            waveforms = [cast("Waveform", clips[i]) for i in places]
            return self._extractor.encode(waveforms, [speakers[i] for i in places])

        good = [i for i, clip in enumerate(clips) if not isinstance(clip, Exception)]
        outcome_of = dict(zip(good, _each(encode, good), strict=True))
        return [outcome_of[i] if i in outcome_of else cast("Exception", clip) for i, clip in enumerate(clips)]


class CopiesStage(UnitsStage):
    """The same of every copy of the train recordings (`units.copies`); what is held out or synthetic has none.

    A copy is a pure function of the recording, its utterance_id and the seed. No more than some minutes of one copy are
    in memory, however many there are.
    """

    name = "copies"
    about = "units of train recordings otherwise heard"
    version = 1
    inputs = (TableInput("audio", (*_COLUMNS, "split", "origin")),)
    schema = COPIES
    config: CopiesStageConfig

    def process(self, *tables: pa.Table) -> pa.Table:
        """One output row per audio row; one of which a copy cannot be encoded becomes a rejected row."""
        sources: list[Row] = tables[0].to_pylist()
        # What is held out is judged as it is, and synthetic speech is varied where it is made.
        varied = [source["split"] == "train" and source["origin"] != SYNTHETIC for source in sources]
        seconds = [_seconds(source) if wanted else None for source, wanted in zip(sources, varied, strict=True)]
        copies: list[list[Outcome]] = [[] for _ in sources]
        changes = changes_of(self.config.copies)
        for group, clips in self._decoded(sources, seconds):
            names, speakers = [cast("str", sources[i]["utterance_id"]) for i in group], _speakers(sources, group)
            for change in changes:
                changed = [self._change(clip, change, name) for clip, name in zip(clips, names, strict=True)]
                for i, outcome in zip(group, self._encode(changed, speakers), strict=True):
                    copies[i].append(outcome)
        return table_of([_copied(source, changes, each) for source, each in zip(sources, copies, strict=True)], COPIES)

    def _change(self, clip: Waveform | Exception, change: Change, name: str) -> Waveform | Exception:
        return clip if isinstance(clip, Exception) else attempt(partial(change, clip, self.config.copies, name))


def grouped(seconds: list[float | None], most: float) -> list[list[int]]:
    """Indices of clips, shortest first, in groups of at most `most` seconds; what is None stays out."""
    groups: list[list[int]] = []
    held = most
    for length, index in sorted((length, index) for index, length in enumerate(seconds) if length is not None):
        if held + length > most:
            groups.append([])
            held = 0.0
        groups[-1].append(index)
        held += length
    return groups


def _seconds(source: Row) -> float | None:
    return None if is_rejected(source) else cast("float", source["duration"])


def _speakers(sources: list[Row], group: list[int]) -> list[str | None]:
    return [cast("str | None", sources[i]["speaker"]) for i in group]


def _each(
    encode: Callable[[list[int]], list[Units]], places: list[int], kept: tuple[type[Exception], ...] = ()
) -> list[Outcome]:
    """What `encode` makes of the clips at `places`; after an error in a batch each clip is tried alone."""
    together = attempt(partial(encode, places), kept)
    if not isinstance(together, Exception):
        return [*together]
    return [together] if len(places) == 1 else [one for place in places for one in _each(encode, [place], kept)]


def _row(source: Row, outcome: Outcome | None) -> Row:
    row = passed_on(source)
    if outcome is None:
        return row
    if isinstance(outcome, Exception):
        return rejected(row, UnitsStage.name, outcome)
    return {**row, **_streams(outcome)}


def _streams(units: Units) -> Row:
    return {"hubert": units.hubert, "pitch": units.pitch, "style": units.style}


def _copied(source: Row, changes: list[Change], outcomes: list[Outcome]) -> Row:
    row = passed_on(source)
    if is_rejected(source):
        return row
    copies: list[Row] = []
    for change, outcome in zip(changes, outcomes, strict=False):
        if isinstance(outcome, Exception):
            return rejected(row, CopiesStage.name, outcome)
        copies.append({"start": change.seconds, "speed": change.speed, "room": change.room, **_streams(outcome)})
    return {**row, "copies": copies}


_TOKENIZED_SECONDS = 300.0


def encode_clips(tokenizer: SpeechTokenizer, clips: Sequence[np.ndarray]) -> list[str | Rejection]:
    """Speech tokens such as ``[St3][Pi1][Hu7]`` of each clip, float32[T] at 16 kHz, or what is wrong with it.

    Clips of similar length are encoded together.
    """

    def encode(places: list[int]) -> list[Units]:
        return tokenizer.encode_batch([clips[i] for i in places])

    def written(units: Outcome) -> str | Rejection:
        if isinstance(units, Exception):
            return Rejection(str(units))
        return tokenizer.to_string(units) if len(units.hubert) else Rejection("too short for a speech unit")

    encoded: dict[int, str | Rejection] = {}
    for group in grouped([len(clip) / SAMPLE_RATE for clip in clips], _TOKENIZED_SECONDS):
        encoded |= zip(group, map(written, _each(encode, group, (SpiritLMError,))), strict=True)
    return [encoded[i] for i in range(len(clips))]
