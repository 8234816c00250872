"""The stages `sequences` (text and speech tokens word by word) and `examples` (packed, to look at)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from spiritlm_core.errors import LakeError, Rejection, is_machine_error
from spiritlm_core.lake.schema import EXAMPLES, SEQUENCES, Row, is_rejected, rejected, table_of
from spiritlm_core.lake.stage import TableInput, TableStage
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import SequencesConfig, TokensConfig
from spiritlm_core.tokens.corpus import STREAMS, Corpus
from spiritlm_core.tokens.documents import Document, corpus_documents
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.layout import speech_only, word_by_word
from spiritlm_core.tokens.pack import fit
from spiritlm_core.tokens.speech import Streams, merge_streams
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.texts import text_documents
from spiritlm_core.tokens.vocabulary import Vocabulary

_COPIED = ("utterance_id", "recording_id", "start", "duration", "speaker", "language", "split")


class SequencesStage(TableStage):
    """Per word, its text tokens and its speech tokens. Models: ``"tokenizer"``, a Hugging Face folder."""

    name: ClassVar[str] = "sequences"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio", (*_COPIED, "reject_stage", "reject_reason")),
        TableInput("words"),
        TableInput("units"),
    )
    schema: ClassVar[pa.Schema] = SEQUENCES

    def __init__(self, config: SequencesConfig, models: Mapping[str, Path]) -> None:
        super().__init__(config, models)
        self.settings = config

    def setup(self) -> None:
        """Load the tokenizer."""
        _ = self._vocabulary

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer.load(self.models["tokenizer"])

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_for(self._tokenizer, self.settings)

    def process(self, *tables: pa.Table) -> pa.Table:
        """One row for each audio row; LakeError if the three tables are not aligned."""
        audio, words, units = tables
        keys = [table["utterance_id"].to_pylist() for table in tables]
        if keys[0] != keys[1] or keys[0] != keys[2]:
            raise LakeError("the audio, words and units shards given to `sequences` do not hold the same rows")
        rows = zip(audio.to_pylist(), words.to_pylist(), _unit_rows(units), strict=True)
        return table_of([self._row(*row) for row in rows], SEQUENCES)

    def _row(self, audio: Row, words: Row, units: Row) -> Row:
        base: Row = {name: audio[name] for name in _COPIED}
        for row in (audio, words, units):
            if is_rejected(row):
                return {**base, "reject_stage": row["reject_stage"], "reject_reason": row["reject_reason"]}
        try:
            return {**base, **self._tokens(words, units)}
        except Exception as error:
            if is_machine_error(error):
                raise
            return rejected(base, self.name, error)

    def _tokens(self, words: Row, units: Row) -> Row:
        vocabulary = self._vocabulary
        streams = Streams(
            units["hubert"],  # type: ignore[arg-type]
            units["pitch"] if vocabulary.pitch else None,  # type: ignore[arg-type]
            units["style"] if vocabulary.style else None,  # type: ignore[arg-type]
        )
        merged = merge_streams(streams)
        if not len(merged):
            raise Rejection("there are no speech units: the audio is too short")
        timed: Sequence[Mapping[str, Any]] = words["words"] or []  # type: ignore[assignment]
        laid = word_by_word(timed, merged.ids(vocabulary), merged.times, self._tokenizer, self.settings)
        return laid or speech_only(words["text"], merged.ids(vocabulary))


def _unit_rows(units: pa.Table) -> Iterator[Row]:
    """Rows of the units table with the streams as NumPy arrays, or None."""
    rows = units.select(["utterance_id", "reject_stage", "reject_reason"]).to_pylist()
    for i, row in enumerate(rows):
        streams = {name: units[name][i].values for name in ("hubert", "pitch", "style")}
        yield {**row, **{name: None if v is None else v.to_numpy() for name, v in streams.items()}}


class ExamplesStage(TableStage):
    """The documents of epoch 0 of one shard, packed. Models: ``"tokenizer"``, as for `sequences`.

    For a look: every document of all three streams once, not mixed by share. A shard is one of `sequences` or one
    of `text`. A rejected row stays one, with its utterance_id or document_id as example_id.
    """

    name: ClassVar[str] = "examples"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("sequences"), TableInput("text", optional=True))
    aligned: ClassVar[bool] = False
    separate: ClassVar[bool] = True
    schema: ClassVar[pa.Schema] = EXAMPLES

    def __init__(self, config: TokensConfig, models: Mapping[str, Path]) -> None:
        super().__init__(config, models)
        self.settings = config

    def setup(self) -> None:
        """Read the vocabulary."""
        _ = self._vocabulary

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_for(self.models["tokenizer"], self.settings.sequences)

    def process(self, *tables: pa.Table) -> pa.Table:
        """Packed rows of train, then of held_out, then the rejected rows."""
        (rows,) = tables
        splits = sorted({split for split in rows["split"].to_pylist() if split}, reverse=True)
        found = [row for split in splits for row in self._examples(rows, split)]
        return table_of([*found, *_rejected_rows(rows)], EXAMPLES)

    def _documents(self, rows: pa.Table, split: str) -> list[Document]:
        view = TableView.of(rows)
        if "document_id" in rows.column_names:
            return list(text_documents(view, self._vocabulary, self.settings, split=split))
        corpus = Corpus.of(view, split, self._vocabulary, self.settings.context_length)
        streams = (
            corpus_documents(corpus, self._vocabulary, self.settings, stream=stream, seed=0, epoch=0)
            for stream in STREAMS
        )
        return [document for stream in streams for document in stream]

    def _examples(self, rows: pa.Table, split: str) -> Iterator[Row]:
        found = self._documents(rows, split)
        for members in fit([len(document.ids) for document in found], self.settings.context_length):
            packed = [found[i] for i in members]
            ids = np.concatenate([document.ids for document in packed])
            offsets = np.cumsum([0, *(len(document.ids) for document in packed)])
            keys = [document.key for document in packed]
            yield {
                "example_id": hashlib.sha256(repr((split, keys)).encode() + ids.tobytes()).hexdigest()[:32],
                "split": split,
                "input_ids": ids,
                "segment_offsets": offsets,
                "segment_streams": [document.stream for document in packed],
                "segment_ids": keys,
            }


def _rejected_rows(rows: pa.Table) -> Iterator[Row]:
    key = "document_id" if "document_id" in rows.column_names else "utterance_id"
    for row in rows.select([key, "split", "reject_stage", "reject_reason"]).to_pylist():
        if is_rejected(row):
            yield {"example_id": row.pop(key), **row}
