"""The rows of `sequences` as a few flat arrays, in an order that does not depend on shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, zip_longest
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.schema import SYNTHETIC
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import PAIRS, PairsConfig, SharesConfig
from spiritlm_core.tokens.counter import combine, key_of
from spiritlm_core.tokens.stage import COPIES, SEQUENCES, encodings
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

STREAMS = ("text", "speech", "interleaved", *PAIRS)

_KEYS = ("recording_id", "start", "utterance_id")
_LISTS = ("text_ids", "text_offsets", "speech_ids", "speech_offsets", "can_switch", "label_ids")
_COLUMNS = (*_KEYS, "split", "speech_only", "origin", "reject_stage", *_LISTS)
_OVERHEAD = 3  # BOS, one marker and EOS share the context with a word


def shown_streams(shares: SharesConfig) -> tuple[str, ...]:
    """The streams whose figures are shown: text, speech and interleaved, and those of examples that have a share."""
    return tuple(stream for stream in STREAMS if stream not in PAIRS or stream in shares.pairs)


def columns_of(view: TableView, *streams: str) -> list[str]:
    """The columns of a `sequences` table that documents of some streams are made from."""
    sides = {"text": {"text"}, "speech": {"speech"}, "classification": {"speech", "label"}}
    wanted = set().union(*(sides.get(stream, {"text", "speech"}) for stream in streams))
    columns = [name for name in _COLUMNS if name not in _LISTS or name.split("_")[0] in {*wanted, "can"}]
    return [*columns, COPIES.name] if "speech" in wanted and COPIES.name in view.columns() else columns


def check_tokenizer(view: TableView, text: TextTokenizer) -> None:
    """Encode the words of a few rows of a `sequences` table again.

    Raises LakeError: its text tokens are not those of this tokenizer.
    """
    shards = (shard for shard in view.shards(("utterance_id", "words", "text_ids", "speech_only")) if shard.num_rows)
    for row in [row for shard in islice(shards, 1) for row in shard.slice(0, 64).to_pylist()]:
        if row["speech_only"] or not row["words"] or row["text_ids"] is None:
            continue
        if text.encode_words(row["words"]).ids.tolist() != row["text_ids"]:
            raise LakeError(
                f"`sequences` was made with another tokenizer: the text of {row['utterance_id']} has other tokens with "
                "this one. Name the folder of the tokenizer that the corpus was built with"
            )


@dataclass(frozen=True)
class Tokens:
    """Tokens of one modality. Word w owns ``ids[offsets[w]:offsets[w + 1]]``."""

    ids: np.ndarray  # int32[T]
    offsets: np.ndarray  # int64[W + 1]

    def of(self, first: int, last: int) -> list[int]:
        """The tokens of the words from `first` up to `last`."""
        return self.ids[self.offsets[first] : self.offsets[last]].tolist()


@dataclass(frozen=True)
class Runs:
    """Stretches of consecutive segments of one recording without a gap, or single ones: what documents are cut from."""

    first: np.ndarray  # int64[R], the first word of each run
    last: np.ndarray  # int64[R], the word behind its last
    recordings: list[str]  # R recording_ids
    keys: np.ndarray  # uint64[R], random but fixed, from the utterance_id of the first segment

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.recordings)


@dataclass(frozen=True)
class Corpus:
    """All words of one split, ordered by recording and time. About 4 bytes a token and 17 a word."""

    text: Tokens  # text tokens of the words
    speech: Tokens  # speech tokens of the words
    labels: Tokens  # text tokens of the labels; that of segment s is "word" s, which has none if there is no label
    can_switch: np.ndarray  # bool[W], may the modality change in front of the word?
    segments: np.ndarray  # int64[S + 1]; segment s has words ``segments[s]`` to ``segments[s + 1]``
    good: np.ndarray  # bool[S], the segment was not rejected
    speech_only: np.ndarray  # bool[S]
    people: np.ndarray  # bool[S], it was recorded, not spoken by a machine
    recordings: pa.StringArray  # S recording_ids
    utterances: pa.StringArray  # S utterance_ids
    copies: tuple[Corpus, ...] = ()
    """The same with other speech tokens, once for each copy of the recordings that there is (`units.copies`)."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    """Whose examples there are, and how often."""

    @classmethod
    def of(
        cls,
        view: TableView,
        split: str,
        vocabulary: Vocabulary,
        context_length: int,
        *,
        copies: bool = True,
        pairs: PairsConfig | None = None,
    ) -> Self:
        """Read one split of a `sequences` table; a word that does not fit the context is cut into several.

        Tokens whose column the view lacks are left out. Without `copies`, those of the recordings are left alone;
        without `pairs`, each is an example once.

        Raises LakeError: the table was made for another vocabulary, or its offsets do not match its ids.
        """
        every_column = (*_COLUMNS, COPIES.name) if copies else _COLUMNS
        columns = [name for name in view.columns() if name in every_column]
        shards = (of_split(shard, split) for shard in view.shards(columns))
        every = zip_longest(*map(encodings, shards))  # None: a shard that has no copies
        recorded = next(every, [SEQUENCES.empty_table()])
        whole = replace(cls._of(recorded, vocabulary, context_length), pairs=pairs or PairsConfig())
        filled = ([part or own for part, own in zip(copy, recorded, strict=True)] for copy in every)
        heard = (cls._of(copy, vocabulary, context_length) for copy in filled)
        return replace(whole, copies=tuple(copy.beside(whole) for copy in heard))

    @classmethod
    def _of(cls, tables: Sequence[pa.Table], vocabulary: Vocabulary, context_length: int) -> Self:
        part = _Rows.of(tables).split(context_length)
        for ids in (part.text_ids, part.speech_ids, part.label_ids):
            if len(ids) and (ids.min() < 0 or ids.max() >= vocabulary.size):
                raise LakeError(
                    f"`sequences` has ids beyond the {vocabulary.size} of the vocabulary: it was made for another"
                )
        return cls(
            Tokens(part.text_ids, _offsets(part.text_counts)),
            Tokens(part.speech_ids, _offsets(part.speech_counts)),
            Tokens(part.label_ids, _offsets(part.label_counts)),
            part.can_switch,
            _offsets(part.words),
            part.good,
            part.speech_only,
            part.people,
            part.keys["recording_id"].combine_chunks(),
            part.keys["utterance_id"].combine_chunks(),
        )

    def beside(self, whole: Corpus) -> Self:
        """The same with what it shares with `whole` in memory once: all but the speech, if long words are cut alike."""
        same = np.array_equal(self.text.offsets, whole.text.offsets)
        text = whole.text if same else self.text
        return replace(self, text=text, recordings=whole.recordings, utterances=whole.utterances, pairs=whole.pairs)

    def runs(self, stream: str) -> Runs:
        """The runs of a stream; segments without text are left to the speech stream and end a run of the others.

        In the streams of examples each segment that has a question and an answer is a run of its own.
        """
        if stream == "speech":
            return self._all_runs
        if stream not in PAIRS:
            return self._text_runs
        if stream == "classification":
            return self._label_runs
        return self._spoken_runs if stream == "tts" else self._pair_runs

    @cached_property
    def _all_runs(self) -> Runs:
        return self._runs_of(self.good)

    @cached_property
    def _text_runs(self) -> Runs:
        return self._runs_of(self.good & ~self.speech_only)

    @cached_property
    def _pair_runs(self) -> Runs:
        return self._examples_of(self._both)

    @cached_property
    def _spoken_runs(self) -> Runs:
        by_people = self._both & self.people
        alone = self.pairs.spoken_by == "people" and by_people.any()
        return self._examples_of(by_people) if alone else self._pair_runs

    def _examples_of(self, usable: np.ndarray) -> Runs:
        """Each usable segment by itself; those of people as often as `pairs.people_times` says."""
        once = self._runs_of(usable, join=False)
        times = np.where(self.people[usable], self.pairs.people_times, 1)
        again = np.repeat(np.arange(len(once)), times)
        nth = np.arange(len(again)) - np.repeat(np.cumsum(times) - times, times)
        keys = once.keys[again]
        for number in range(1, self.pairs.people_times):
            keys[nth == number] = combine(keys[nth == number], number)
        return Runs(once.first[again], once.last[again], [once.recordings[run] for run in again], keys)

    @property
    def _both(self) -> np.ndarray:
        """bool[S], the segments that have both speech and text."""
        return self._audible & ~self.speech_only & (np.diff(self.text.offsets[self.segments]) > 0)

    @cached_property
    def _label_runs(self) -> Runs:
        return self._examples_of(self._audible & (np.diff(self.labels.offsets) > 0))

    @property
    def _audible(self) -> np.ndarray:
        """bool[S], the good segments that have speech tokens."""
        return self.good & (np.diff(self.speech.offsets[self.segments]) > 0)

    def segment(self, word: int) -> int:
        """The segment that a word belongs to."""
        return int(np.searchsorted(self.segments, word, "right")) - 1

    def _runs_of(self, usable: np.ndarray, *, join: bool = True) -> Runs:
        names = self.recordings
        joined = np.zeros(len(names) + 1, dtype=bool)  # is segment s joined to the one before it?
        alike = pc.equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
        joined[1:-1] = join & usable[1:] & usable[:-1] & alike
        first = np.flatnonzero(usable & ~joined[:-1])
        last = np.flatnonzero(usable & ~joined[1:])
        keys = np.array([key_of(name) for name in self.utterances.take(first).to_pylist()], dtype=np.uint64)
        return Runs(self.segments[first], self.segments[last + 1], names.take(first).to_pylist(), keys)


@dataclass(frozen=True)
class _Rows:
    """Rows by recording, then time, their lists laid end to end; counts are per word, `words` per row."""

    keys: pa.Table
    good: np.ndarray
    speech_only: np.ndarray
    people: np.ndarray
    words: np.ndarray
    can_switch: np.ndarray
    text_counts: np.ndarray
    speech_counts: np.ndarray
    text_ids: np.ndarray
    speech_ids: np.ndarray
    label_counts: np.ndarray  # per row
    label_ids: np.ndarray

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> Self:
        table = pa.concat_tables(tables)
        order = pc.sort_indices(table, [(name, "ascending") for name in _KEYS]).to_numpy().astype(np.int64)
        lists = {name: _laid_out(table[name], order) for name in _LISTS if name in table.column_names}
        table = table.drop_columns([*lists]).take(order)
        can_switch, words = lists["can_switch"]
        text, speech = (_tokens(lists, name, words) for name in ("text", "speech"))
        label_ids, label_counts = lists.get("label_ids") or _nothing(len(table))
        return cls(
            table.select(_KEYS),
            table["reject_stage"].is_null().to_numpy(),
            table["speech_only"].fill_null(False).to_numpy(),
            pc.not_equal(table["origin"], SYNTHETIC).fill_null(True).to_numpy(),
            words,
            can_switch.astype(bool),
            text[1],
            speech[1],
            text[0],
            speech[0],
            label_counts,
            label_ids,
        )

    def split(self, context_length: int) -> Self:
        """Cut words that do not fit into the context into pieces without a switch between them."""
        limit = context_length - _OVERHEAD
        if max(counts.max(initial=0) for counts in (self.text_counts, self.speech_counts)) <= limit:
            return self
        pieces = pieces_of(self.text_counts, self.speech_counts, context_length)
        first = _offsets(pieces)[:-1]
        nth = np.arange(pieces.sum()) - np.repeat(first, pieces)
        cut = [np.clip(np.repeat(c, pieces) - nth * limit, 0, limit) for c in (self.text_counts, self.speech_counts)]
        row = np.repeat(np.arange(len(self.words)), self.words)
        words = np.bincount(row, weights=pieces, minlength=len(self.words)).astype(np.int64)
        switch = np.repeat(self.can_switch, pieces) & (nth == 0)
        text, speech = cut
        return replace(self, words=words, can_switch=switch, text_counts=text, speech_counts=speech)


def pieces_of(text_counts: np.ndarray, speech_counts: np.ndarray, context_length: int) -> np.ndarray:
    """Into how many pieces a word of so many tokens is cut, int64[W]; nearly always one."""
    return np.maximum(1, -(-np.maximum(text_counts, speech_counts) // (context_length - _OVERHEAD)))


def of_split(rows: pa.Table, split: str) -> pa.Table:
    """The rows of one split; the table itself, not copied, where it has no others."""
    chosen = pc.equal(rows["split"], split)
    return rows if pc.all(chosen, skip_nulls=False).as_py() else rows.filter(chosen)


def list_values(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values of all lists end to end, and the length of each; a null list has length 0."""
    return _laid_out(column, np.arange(len(column)))


def _laid_out(column: pa.ChunkedArray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of all lists end to end with the rows in another order, and the length of each, int64[N]."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    counts = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    empty = np.empty(0, dtype=column.type.value_type.to_pandas_dtype())
    begins = _offsets(np.array([len(chunk) for chunk in column.chunks], np.int64))
    # rows that follow each other do so in stretches: recordings
    starts = np.flatnonzero((np.diff(order, prepend=-2) != 1) | np.isin(order, begins))
    first, last = order[starts], order[np.roll(starts, -1) - 1]
    of = np.searchsorted(begins, first, "right") - 1
    bounds = _offsets(counts)
    base = bounds[begins[of]]
    stretches = zip(of.tolist(), (bounds[first] - base).tolist(), (bounds[last + 1] - base).tolist(), strict=True)
    parts = [chunks[chunk][begin:end] for chunk, begin, end in stretches]
    return parts[0] if len(parts) == 1 else np.concatenate([empty, *parts]), counts[order]


def _tokens(
    lists: dict[str, tuple[np.ndarray, np.ndarray]], name: str, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a modality, and how many each word has, int64[W]; none if the lists lack them."""
    if f"{name}_ids" not in lists:
        return _nothing(int(words.sum()))
    ids, (offsets, lengths) = lists[f"{name}_ids"][0], lists[f"{name}_offsets"]
    if (np.maximum(lengths - 1, 0) != words).any():
        raise LakeError("`sequences`: offsets and can_switch are of different lengths")
    ends = np.cumsum(lengths[lengths > 0])
    counts = np.delete(np.diff(offsets, prepend=0), np.concatenate([[0], ends[:-1]]) if len(ends) else [])
    if counts.sum() != len(ids):
        raise LakeError(f"`sequences`: {name}_offsets do not match {name}_ids")
    return ids, counts.astype(np.int64)


def _nothing(count: int) -> tuple[np.ndarray, np.ndarray]:
    """No tokens for `count` words or rows."""
    return np.empty(0, np.int32), np.zeros(count, np.int64)


def _offsets(counts: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
