"""From packed sequences to what the model eats: tensors, attention that stays within a document, prefetching."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
import torch

from spiritlm_core.lm.errors import TokenRangeError
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.pack import Packed

IGNORED = -100
"""Target of a position without a next token in its document."""


@dataclass(frozen=True)
class Batch:
    """Packed sequences as arrays, all of shape [sequences, length].

    Attributes:
        input_ids: int64 token ids.
        document_ids: int64, equal within a document; padding has an id of its own.
        targets: int64, the next token of the same document, else `IGNORED`.
        streams: int64, index into `STREAMS`; -1 for padding.
    """

    input_ids: torch.Tensor
    document_ids: torch.Tensor
    targets: torch.Tensor
    streams: torch.Tensor

    @classmethod
    def of(cls, packed: Sequence[Packed], vocabulary_size: int) -> Batch:
        """Stack packed sequences.

        Raises:
            TokenRangeError: an id is negative or not below `vocabulary_size`.
        """
        ids = np.stack([item.input_ids for item in packed]).astype(np.int64)
        documents = np.stack([item.document_ids for item in packed]).astype(np.int64)
        if ids.min() < 0 or ids.max() >= vocabulary_size:
            wrong = int(ids.max() if ids.max() >= vocabulary_size else ids.min())
            raise TokenRangeError(
                f"token id {wrong} in the training sequences, but the vocabulary has ids 0 to {vocabulary_size - 1}: "
                "the sequences were made with another tokenizer or vocabulary"
            )
        streams = np.stack([_stream_codes(item) for item in packed])
        targets = np.full_like(ids, IGNORED)
        same = (documents[:, 1:] == documents[:, :-1]) & (streams[:, :-1] >= 0)
        targets[:, :-1][same] = ids[:, 1:][same]
        return cls(*(torch.from_numpy(array) for array in (ids, documents, targets, streams)))

    def __len__(self) -> int:
        """Number of sequences."""
        return self.input_ids.shape[0]

    def split(self, size: int) -> Iterator[Batch]:
        """Micro-batches of at most `size` sequences."""
        tensors = (self.input_ids, self.document_ids, self.targets, self.streams)
        for parts in zip(*(torch.split(tensor, size) for tensor in tensors), strict=True):
            yield Batch(*parts)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        if device.type == "cpu":
            return self
        tensors = (self.input_ids, self.document_ids, self.targets, self.streams)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    def counts(self) -> torch.Tensor:
        """int64[len(STREAMS) + 1]: predicted tokens of each stream, then all tokens but padding."""
        predicted = self.targets != IGNORED
        streams = [((self.streams == code) & predicted).sum() for code in range(len(STREAMS))]
        return torch.stack([*streams, (self.streams >= 0).sum()])


def _stream_codes(packed: Packed) -> np.ndarray:
    """int64[length]: the stream of each token; -1 for padding."""
    codes = np.array([*(STREAMS.index(stream) for stream in packed.streams), -1], dtype=np.int64)
    found: np.ndarray = codes[packed.document_ids]  # padding has document id -1, the last entry
    return found


def position_ids(document_ids: torch.Tensor) -> torch.Tensor:
    """Positions that start from 0 in each document, int64[sequences, length]."""
    places = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    starts = torch.ones_like(document_ids, dtype=torch.bool)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return places - torch.where(starts, places, 0).cummax(dim=1).values


def causal_document_mask(document_ids: torch.Tensor) -> torch.Tensor:
    """bool[sequences, 1, length, length]: True where a query may look, at itself and earlier tokens of its document."""
    same = document_ids[:, None, :, None] == document_ids[:, None, None, :]
    return same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()


def model_inputs(batch: Batch, attention: str) -> dict[str, Any]:
    """Arguments of the model's forward pass, with no attention across documents.

    ``sdpa`` gets a block-diagonal causal mask. ``flash_attention_2`` gets all sequences laid out in one row, from
    whose positions transformers derives the document bounds of the variable-length kernel; no mask is ever built.
    """
    positions = position_ids(batch.document_ids)
    if attention == "flash_attention_2":
        return {"input_ids": batch.input_ids.reshape(1, -1), "position_ids": positions.reshape(1, -1)}
    mask = causal_document_mask(batch.document_ids)
    return {"input_ids": batch.input_ids, "position_ids": positions, "attention_mask": mask}


@dataclass(frozen=True)
class Step:
    """The data of one optimiser step.

    Attributes:
        batch: this rank's part.
        state: where the stream of packed sequences stands after this step, the same place on every rank; JSON-able.
    """

    batch: Batch
    state: dict[str, Any]


def steps(source: Iterator[tuple[Packed, dict[str, Any]]], vocabulary_size: int, sequences: int) -> Iterator[Step]:
    """Group a stream of packed sequences into steps of so many `sequences`."""
    while taken := list(islice(source, sequences)):
        yield Step(Batch.of([packed for packed, _ in taken], vocabulary_size), taken[-1][1])


class Prefetch(Iterator[Step]):
    """Iterates in a thread of its own, a few steps ahead; errors reappear in the consumer."""

    def __init__(self, source: Iterator[Step], ahead: int = 4) -> None:
        self._source = source
        self._queue: queue.Queue[Step | BaseException] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for step in self._source:
                if not self._put(step):
                    return
            self._put(StopIteration())
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
            self._put(error)

    def _put(self, item: Step | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __next__(self) -> Step:
        """The next step, waiting for it if need be."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
