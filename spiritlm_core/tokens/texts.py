"""The rows of the table `text` as training documents of the text stream.

A text longer than the context is cut into chunks that are drawn one by one, so that a book does not fill the mixture
for a long stretch. Their order depends on the documents, not on shards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow.compute as pc

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.corpus import list_values
from spiritlm_core.tokens.counter import combine, key_of
from spiritlm_core.tokens.documents import Document, Plan
from spiritlm_core.tokens.vocabulary import Vocabulary

DOCUMENTS = "documents"
"""What the mixture calls text documents, to tell them from the transcripts; both are of the stream "text"."""

TEXT_COLUMNS = ("document_id", "split", "text_ids", "reject_stage")


@dataclass(frozen=True)
class Texts:
    """The good documents of one split, ordered by document_id. About 50 bytes each, and their tokens on disk."""

    ids: np.ndarray  # int32[T], the tokens of all documents, in a temporary file that this process alone maps
    starts: np.ndarray  # int64[D], where each document begins in `ids`
    lengths: np.ndarray  # int64[D], its tokens
    names: np.ndarray  # bytes[D], its document_id
    keys: np.ndarray  # uint64[D], random but fixed, from its document_id

    @classmethod
    def of(cls, view: TableView, split: str, vocabulary: Vocabulary) -> Self:
        """Read one split of a `text` table; its shards and their order make no difference.

        Raises LakeError: the table was made for another vocabulary.
        """
        names: list[str] = []
        counts: list[np.ndarray] = [np.empty(0, np.int64)]
        with tempfile.TemporaryFile(prefix="spiritlm-text-") as file:  # 4 bytes a token are too many to hold
            for found, lengths, ids in _parts(view, split, vocabulary):
                names += found
                counts.append(lengths)
                ids.astype(np.int32, copy=False).tofile(file)
            file.flush()
            every = np.memmap(file, np.int32, "r") if file.tell() else np.empty(0, np.int32)
        lengths = np.concatenate(counts)
        order = np.argsort(np.array(names, dtype=np.bytes_), kind="stable") if names else np.empty(0, np.int64)
        keys = np.array([key_of(name) for name in names], dtype=np.uint64)
        starts = np.cumsum(lengths) - lengths
        return cls(every, starts[order], lengths[order], np.array(names, np.bytes_)[order], keys[order])

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)


def _parts(view: TableView, split: str, vocabulary: Vocabulary) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Names, lengths and ids of the good rows of each shard."""
    for shard in view.good(TEXT_COLUMNS, split):
        rows = shard.filter(pc.field("text_ids").is_valid())
        ids, lengths = list_values(rows["text_ids"])
        if len(ids) and (ids.min() < 0 or ids.max() >= vocabulary.text_size):
            wrong = int(ids.min() if ids.min() < 0 else ids.max())
            raise LakeError(
                f"`text` has id {wrong}, beyond the {vocabulary.text_size} text tokens of the vocabulary: it was made "
                "for another tokenizer; run the recipe again"
            )
        yield rows["document_id"].to_pylist(), lengths, ids


class TextPlanner:
    """Plans the documents of texts, a chunk of the context each, and puts their ids together."""

    copy = 0

    def __init__(self, texts: Texts, vocabulary: Vocabulary, config: TokensConfig, seed: int) -> None:
        self.texts = texts
        self._seed = seed
        first = [i for i in (vocabulary.bos, vocabulary.text_marker) if i is not None]
        self._head = np.array(first, np.int32)
        self._tail = np.array([vocabulary.eos] if vocabulary.eos is not None else [], np.int32)
        self._room = config.context_length - len(self._head) - len(self._tail)
        chunks = np.where(texts.lengths > 0, -(-texts.lengths // self._room), 0)
        self._owner = np.repeat(np.arange(len(texts)), chunks)
        self._number = np.arange(len(self._owner)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
        self._chunk_keys = _chunk_keys(texts.keys[self._owner], self._number)

    def size(self, stream: str) -> int:
        """Text tokens of one epoch; there is one `stream`."""
        del stream
        return int(self.texts.lengths.sum())

    def keys(self, stream: str, epoch: int) -> np.ndarray:
        """A random key of each chunk, uint64[chunks], new in every epoch."""
        return combine(self._chunk_keys, key_of(self._seed, stream, epoch))

    def plans(self, stream: str, run: int, key: int) -> list[Plan]:
        """The one document that is chunk `run`; `key` makes no difference."""
        owner, first = int(self._owner[run]), int(self._number[run]) * self._room
        length = min(int(self.texts.lengths[owner]) - first, self._room)
        ends = first + length == self.texts.lengths[owner]
        total = len(self._head) + length + ends * len(self._tail)
        return [Plan(stream, run, [(False, first, first + length)], bool(ends), int(total), self)]

    def ids(self, plan: Plan) -> np.ndarray:
        """The token ids of a document, int32[plan.length]."""
        start = int(self.texts.starts[self._owner[plan.run]])
        ((_, first, last),) = plan.spans
        body = self.texts.ids[start + first : start + last]
        return np.concatenate([self._head, body, self._tail[: plan.ends]])

    def document(self, plan: Plan) -> Document:
        """The document with its ids; its key is the document_id."""
        return Document(self.ids(plan), "text", self.texts.names[self._owner[plan.run]].decode())


def _chunk_keys(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keys of chunks, uint64[chunks], from those of their documents and their numbers within them."""
    return combine(keys ^ combine(numbers.astype(np.uint64), key_of("chunk")), key_of(DOCUMENTS))
