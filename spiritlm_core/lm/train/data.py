"""From packed sequences to what the model eats: tensors, attention that stays within a document, prefetching."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import torch

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.model.attention import Documents
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.pack import PADDING, Packed


class TokenRangeError(SpiritLMError):
    """A training sequence holds an id that the vocabulary does not have."""


@dataclass(frozen=True)
class Batch:
    """Packed sequences of one forward pass. P positions predict a token that the loss counts."""

    input_ids: torch.Tensor  # int64[sequences, length]
    document_ids: torch.Tensor
    """int64[sequences, length], different in every document of the batch; padding is a document, too."""
    position_ids: torch.Tensor  # int64[sequences, length], from 0 in each document
    predicting: torch.Tensor  # int64[P], the positions in the flattened batch
    answers: torch.Tensor  # int64[P], the tokens that they predict
    streams: torch.Tensor  # int64[P], their streams, as indices into `STREAMS`
    tokens: int  # tokens without padding
    documents: Documents  # bounds of the documents in the flattened batch

    @classmethod
    def of(cls, packed: Sequence[Packed], vocabulary_size: int) -> Batch:
        """Stack packed sequences. Raises TokenRangeError: an id is negative or not below `vocabulary_size`."""
        ids = np.stack([item.input_ids for item in packed]).astype(np.int64)
        _check_range(ids, vocabulary_size)
        documents = _document_ids(packed)
        answering = np.flatnonzero([item.targets for item in packed])
        predicting = answering - 1
        streams = np.stack([_stream_codes(item) for item in packed]).ravel()
        return cls(
            input_ids=torch.from_numpy(ids),
            document_ids=torch.from_numpy(documents),
            position_ids=torch.from_numpy(np.stack([item.positions for item in packed])),
            predicting=torch.from_numpy(predicting),
            answers=torch.from_numpy(ids.ravel()[answering]),
            streams=torch.from_numpy(streams[predicting]),
            tokens=int((streams >= 0).sum()),
            documents=Documents.of(documents.ravel()),
        )

    def __len__(self) -> int:
        """Number of sequences."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        if device.type == "cpu":
            return self
        names = ("input_ids", "document_ids", "position_ids", "predicting", "answers", "streams")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return replace(self, **moved, documents=self.documents.to(device))

    def counts(self) -> torch.Tensor:
        """int64[len(STREAMS) + 1]: predicted tokens of each stream, then all tokens but padding."""
        streams = [int((self.streams == code).sum()) for code in range(len(STREAMS))]
        return torch.tensor([*streams, self.tokens])

    def mask(self) -> torch.Tensor:
        """bool[sequences, 1, length, length]: True where a query may look, at itself and earlier in its document."""
        ids = self.document_ids
        same = ids[:, None, :, None] == ids[:, None, None, :]
        return same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()


def _check_range(ids: np.ndarray, size: int) -> None:
    if ids.min() < 0 or ids.max() >= size:
        wrong = int(ids.max() if ids.max() >= size else ids.min())
        raise TokenRangeError(
            f"token id {wrong} in the training sequences, but the vocabulary has ids 0 to {size - 1}: "
            "the sequences were made with another tokenizer or vocabulary"
        )


def _document_ids(packed: Sequence[Packed]) -> np.ndarray:
    """int64[sequences, length], no id twice; padding has the first of each sequence."""
    ids = np.stack([item.document_ids for item in packed]).astype(np.int64)
    documents: np.ndarray = ids - PADDING + np.arange(len(packed))[:, None] * (ids.shape[1] + 1)
    return documents


def _stream_codes(packed: Packed) -> np.ndarray:
    """int64[length]: the stream of each token; -1 for padding."""
    codes = np.array([*(STREAMS.index(stream) for stream in packed.streams), -1], dtype=np.int64)
    streams: np.ndarray = codes[packed.document_ids]  # padding has document id -1, the last entry
    return streams


@dataclass(frozen=True)
class Step:
    """The data of one optimiser step."""

    parts: tuple[Batch, ...]  # this rank's share, in micro-batches
    state: dict[str, Any]
    """Where the stream of packed sequences stands after this step, the same place on every rank; JSON-able."""

    def counts(self) -> torch.Tensor:
        """As :meth:`Batch.counts`."""
        return torch.stack([part.counts() for part in self.parts]).sum(dim=0)


def steps(
    source: Iterator[tuple[Packed, dict[str, Any]]], vocabulary_size: int, sequences: int, micro_batch: int
) -> Iterator[Step]:
    """Group a stream of packed sequences into steps of so many `sequences`, a `micro_batch` in one forward pass."""
    while taken := list(islice(source, sequences)):
        yield Step(tuple(batches([item for item, _ in taken], vocabulary_size, micro_batch)), taken[-1][1])


def batches(packed: Iterable[Packed], vocabulary_size: int, size: int) -> Iterator[Batch]:
    """Batches of at most `size` sequences."""
    source = iter(packed)
    while taken := list(islice(source, size)):
        yield Batch.of(taken, vocabulary_size)


class Prefetch(Iterator[Step]):
    """Iterates in a thread of its own, a few steps ahead; errors reappear in the consumer."""

    def __init__(self, source: Iterator[Step], ahead: int = 4) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._coming = deque(self._thread.submit(next, source) for _ in range(ahead))
        self.waited = 0.0  # seconds, for the last step

    def __next__(self) -> Step:
        """The next step, waiting for it if need be."""
        begun = time.monotonic()
        self._coming.append(self._thread.submit(next, self._source))
        step = self._coming.popleft().result()
        self.waited = time.monotonic() - begun
        return step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
