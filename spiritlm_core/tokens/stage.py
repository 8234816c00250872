"""The stage `sequences`: text and speech tokens, word by word."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.errors import LakeError, Rejection
from spiritlm_core.lake.schema import REJECT, Row, is_rejected, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.tokens.config import SequencesConfig, SequencesStageConfig
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.speech import Streams, merge_streams
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

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
        pa.field("words", pa.list_(pa.string())),  # as the tokenizer knows them: "25", or "twenty five"
        pa.field("text_ids", pa.list_(pa.int32())),  # token ids of the words, one after the other
        pa.field("text_offsets", pa.list_(pa.int32())),  # word i owns text_ids[o[i]:o[i+1]]; len(words) + 1 entries
        pa.field("speech_ids", pa.list_(pa.int32())),
        pa.field("speech_offsets", pa.list_(pa.int32())),
        pa.field("can_switch", pa.list_(pa.bool_())),  # may the modality change in front of word i?
        pa.field("speech_only", pa.bool_()),  # too few timed words: one "word" holding all the speech, no text
        pa.field("label", pa.string()),  # class of the recording, if known
        pa.field("label_ids", pa.list_(pa.int32())),  # its token ids; null without a label
        pa.field("origin", pa.string()),  # "synthetic" where a machine spoke
        *REJECT,
    ]
)

COPIES = pa.field(
    "copies",  # the same words in each copy of the recording; null where a copy is too short for a unit
    pa.list_(pa.struct([SEQUENCES.field(name) for name in ("speech_ids", "speech_offsets", "can_switch")])),
)

_COPIED = ("utterance_id", "recording_id", "start", "duration", "speaker", "language", "split", "label", "origin")


class SequencesStage(TableStage):
    """Per word, its text tokens and its speech tokens. Models: ``"tokenizer"``, a Hugging Face folder."""

    config: SequencesStageConfig
    name: ClassVar[str] = "sequences"
    about: ClassVar[str] = "text and speech tokens of every word"
    version: ClassVar[int] = 3  # 2: the label of a recording; 3: its origin
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio", (*_COPIED, "reject_stage", "reject_reason")),
        TableInput("words"),
        TableInput("units"),
        TableInput("selection", optional=True),  # filters and duplicates
    )
    schema: ClassVar[pa.Schema] = SEQUENCES

    def setup(self) -> None:
        """Load the tokenizer."""
        _ = self._vocabulary

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer.load(self.models["tokenizer"])

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_for(self._tokenizer, self.config)

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row for each audio row; LakeError if the tables are not aligned."""
        audio, words, units, *selection = tables
        check_aligned(tables)
        others = (table.to_pylist() for table in selection)
        rows = zip(audio.to_pylist(), words.to_pylist(), _unit_rows(units), *others, strict=True)
        return table_of([self._row(*row) for row in rows], SEQUENCES)

    def _row(self, audio: Row, words: Row, units: Row, *selection: Row) -> Row:
        base: Row = {name: audio[name] for name in _COPIED}
        for row in (audio, words, units, *selection):
            if is_rejected(row):
                return {**base, "reject_stage": row["reject_stage"], "reject_reason": row["reject_reason"]}
        return self.tried(base, lambda: {**self._tokens(words, units), "label_ids": self._label(audio["label"])})

    def _label(self, label: object) -> np.ndarray | None:
        """The token ids of a label as an answer, int32[N]; None if there is none."""
        ids = self._tokenizer.encode_words(str(label or "")).ids
        return ids if len(ids) else None

    def _tokens(self, words: Row, units: Row, start: float = 0.0, speed: float = 1.0) -> Row:
        """The token columns; second t of the units was second ``start + speed t`` of the words."""
        vocabulary = self._vocabulary
        streams = Streams(
            units["hubert"],  # type: ignore[arg-type]
            units["pitch"] if vocabulary.pitch else None,  # type: ignore[arg-type]
            units["style"] if vocabulary.style else None,  # type: ignore[arg-type]
        )
        merged = merge_streams(streams, rate=self.config.rate)
        if not len(merged):
            raise Rejection("there are no speech units: the audio is too short")
        timed: Sequence[Mapping[str, Any]] = words["words"] or []  # type: ignore[assignment]
        times = start + speed * merged.times
        laid = word_by_word(timed, merged.ids(vocabulary), times, self._tokenizer, self.config)
        return laid or speech_only(words["text"], merged.ids(vocabulary))


class CopiedSequencesStage(SequencesStage):
    """The same, with the speech tokens of each copy of the recordings, for recipes with `units.copies`."""

    inputs: ClassVar[tuple[TableInput, ...]] = (*SequencesStage.inputs, TableInput("copies"))
    schema: ClassVar[pa.Schema] = pa.schema([*list(SEQUENCES)[: -len(REJECT)], COPIES, *REJECT])

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row for each audio row; LakeError if the tables are not aligned."""
        *others, copied = tables
        check_aligned(tables)
        rows = super().process(*others)
        copies = [
            None if reason else [self._copy(words, copy) for copy in copies or []]
            for reason, words, copies in zip(
                rows["reject_stage"].to_pylist(), others[1].to_pylist(), copied["copies"].to_pylist(), strict=True
            )
        ]
        place = len(self.schema) - len(REJECT) - 1
        return rows.add_column(place, COPIES, pa.chunked_array([pa.array(copies, COPIES.type)]))

    def _copy(self, words: Row, copy: Row) -> Row | None:
        """The speech tokens of one copy, by the words of the recording."""
        if not copy["hubert"]:
            return None
        tokens = self._tokens(words, copy, copy["start"], copy["speed"])  # type: ignore[arg-type]
        return {name: tokens[name] for name in ("speech_ids", "speech_offsets", "can_switch")}


def encodings(rows: pa.Table) -> list[pa.Table]:
    """Rows of `sequences` as they are, then for each copy with its speech tokens; one without stays as it is."""
    if COPIES.name not in rows.column_names:
        return [rows]
    copies, rows = rows[COPIES.name].combine_chunks(), rows.drop_columns(COPIES.name)
    lengths = pc.fill_null(pc.list_value_length(copies), 0).to_numpy()
    firsts, flat = np.cumsum(lengths) - lengths, copies.flatten()
    found = [rows]
    for number in range(int(max(lengths, default=0))):
        places = np.where(lengths > number, firsts + number, 0)
        there = (lengths > number) & flat.is_valid().to_numpy(zero_copy_only=False)[places]
        found.append(_replaced(rows, flat, places, there))
    return found


def _replaced(rows: pa.Table, copies: pa.StructArray, places: np.ndarray, there: np.ndarray) -> pa.Table:
    """`rows` with the columns of the copies at `places`, in those rows where `there` is true."""
    chosen = pa.array(np.where(there, places + len(rows), np.arange(len(rows))))
    for field in copies.type:
        own = rows[field.name].combine_chunks()
        column = pa.concat_arrays([own, copies.field(field.name)]).take(chosen)
        rows = rows.set_column(rows.column_names.index(field.name), field, column)
    return rows


def check_aligned(tables: Sequence[pa.Table]) -> None:
    """LakeError if the shards given to `sequences` do not hold the same rows."""
    keys = [table["utterance_id"].to_pylist() for table in tables]
    if any(other != keys[0] for other in keys[1:]):
        raise LakeError("the shards given to `sequences` do not hold the same rows")


def _unit_rows(units: pa.Table) -> Iterator[Row]:
    """Rows of the units table with the streams as NumPy arrays, or None."""
    rows = units.select(["utterance_id", "reject_stage", "reject_reason"]).to_pylist()
    for i, row in enumerate(rows):
        streams = {name: units[name][i].values for name in ("hubert", "pitch", "style")}
        yield {**row, **{name: None if v is None else v.to_numpy() for name, v in streams.items()}}


def word_by_word(
    timed: Sequence[Mapping[str, Any]],
    speech_ids: np.ndarray,
    times: np.ndarray,
    tokenizer: TextTokenizer,
    config: SequencesConfig,
) -> Row | None:
    """The token columns of a `sequences` row; None if there is no text, or too few of its words are timed.

    Args:
        timed: Words as in the `words` table.
        speech_ids: int32[N] ids of the merged speech tokens of the segment.
        times: float64[N], their start times in seconds, not falling.
        tokenizer: For the text.
        config: How many words may be interpolated.
    """
    kept = [(" ".join(word["word"].split()), word) for word in timed if word["word"] and word["word"].strip()]
    missing = sum(word["start"] is None or bool(word["interpolated"]) for _, word in kept)
    if not kept or missing > config.max_interpolated * len(kept):
        return None
    tokens = tokenizer.encode_words([text for text, _ in kept])
    speech_offsets = slots([word["start"] for _, word in kept], times)
    if not len(tokens.ids):
        return None
    return {
        "text": " ".join(filter(None, tokens.words)),
        "words": tokens.words,
        "text_ids": tokens.ids,
        "text_offsets": tokens.offsets,
        "speech_ids": speech_ids,
        "speech_offsets": speech_offsets,
        "can_switch": switches(np.diff(tokens.offsets), np.diff(speech_offsets), tokens.can_switch),
        "speech_only": False,
    }


def speech_only(text: object, speech_ids: np.ndarray) -> Row:
    """The token columns of a row without usable words: one "word" that holds all the speech."""
    return {
        "text": text,
        "words": [""],
        "text_ids": [],
        "text_offsets": [0, 0],
        "speech_ids": speech_ids,
        "speech_offsets": [0, len(speech_ids)],
        "can_switch": [True],
        "speech_only": True,
    }


def slots(starts: Sequence[float | None], times: np.ndarray) -> np.ndarray:
    """Share speech tokens out to W words: word i owns tokens ``offsets[i]`` to ``offsets[i + 1]`` of int32[W + 1].

    A word's slot lasts until the next word starts, so that the silence between two belongs to the earlier one, that in
    front of the first to the first. A start of None counts as the start before it; `times`, float64[N], are those of
    the tokens in seconds, not falling.
    """
    known = np.array([-np.inf if start is None else start for start in starts], dtype=np.float64)
    inner = np.searchsorted(times, np.maximum.accumulate(known)[1:], side="left")
    return np.concatenate([[0], inner, [len(times)]]).astype(np.int32)


def switches(text_counts: np.ndarray, speech_counts: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Where the modality may change, so that no span is ever empty in either modality: bool[W], the first always True.

    Given are the text and the speech tokens of each word, int[W], and where the text tokens allow a change, bool[W].
    """
    starts = np.zeros(len(allowed), dtype=bool)
    text = speech = 0
    for i, (ok, more_text, more_speech) in enumerate(
        zip(allowed.tolist(), text_counts.tolist(), speech_counts.tolist(), strict=True)
    ):
        if ok and text and speech:
            starts[i] = True
            text = speech = 0
        text, speech = text + more_text, speech + more_speech
    if starts.any() and not (text and speech):
        starts[np.flatnonzero(starts)[-1]] = False  # the last words join those before them
    starts[:1] = True
    return starts
