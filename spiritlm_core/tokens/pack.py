"""Packing documents into sequences of one length, every document whole."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np

from spiritlm_core.tokens.documents import Document

PADDING = -1  # document id of padding

T = TypeVar("T")


class Where(TypedDict):
    """Which sequences of the one global order a rank gets: every ``world_size``-th, from the ``rank``-th on."""

    seed: int  # of the order
    start_state: Mapping[str, Any] | None  # came with the sequence to go on behind; None starts from the beginning
    rank: int
    world_size: int


@dataclass(frozen=True)
class Packed:
    """One training sequence."""

    input_ids: np.ndarray  # int32[length], documents one after the other, then zeros
    document_ids: np.ndarray  # int32[length], 0, 1, … for each token's document; `PADDING` for the zeros
    streams: tuple[str, ...]  # stream of each document
    keys: tuple[str, ...]  # recording_id of each document
    predicted: np.ndarray | None = None  # bool[length], the tokens that the loss counts; None for all of them

    @property
    def tokens(self) -> int:
        """Number of tokens, padding not counted."""
        return int(np.count_nonzero(self.document_ids != PADDING))

    @property
    def begins(self) -> np.ndarray:
        """bool[length], whether a document begins there, or the padding."""
        changes: np.ndarray = np.diff(self.document_ids, prepend=PADDING - 1) != 0
        return changes

    @property
    def positions(self) -> np.ndarray:
        """int64[length], from 0 in each document and in the padding."""
        places = np.arange(len(self.document_ids))
        positions: np.ndarray = places - np.maximum.accumulate(np.where(self.begins, places, 0))
        return positions

    @property
    def targets(self) -> np.ndarray:
        """bool[length], the tokens that the loss counts and that another of their document predicts."""
        inner: np.ndarray = ~self.begins & (self.document_ids != PADDING)
        return inner if self.predicted is None else inner & self.predicted


def packed(documents: Sequence[Document], length: int) -> Packed:
    """Put documents into one sequence; ValueError if they do not fit."""
    lengths = [len(document.ids) for document in documents]
    padding = length - sum(lengths)
    ids = np.concatenate([*(document.ids for document in documents), np.zeros(padding, np.int32)])
    numbers = np.repeat(np.array([*range(len(lengths)), PADDING], np.int32), [*lengths, padding])
    streams, keys = tuple([d.stream for d in documents]), tuple([d.key for d in documents])
    return Packed(ids, numbers, streams, keys, _predicted(documents, padding))


def _predicted(documents: Sequence[Document], padding: int) -> np.ndarray | None:
    """The tokens of a sequence that the loss counts, bool[length]; None if it counts those of every document."""
    if all(document.predicted is None for document in documents):
        return None
    parts = [np.ones(len(d.ids), bool) if d.predicted is None else d.predicted for d in documents]
    return np.concatenate([*parts, np.zeros(padding, bool)])


def fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each document, the longest first, goes where it leaves the least room of `capacity` tokens.

    Returns the indices of the documents of each sequence, ascending; the sequences in the order of their first.

    Raises ValueError: a document is longer than a sequence.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a document of {max(lengths)} tokens does not fit into sequences of {capacity}")
    sequences: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room left and index of each sequence that is not full, ascending
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(rooms, (lengths[i], -1))
        room, where = rooms.pop(at) if at < len(rooms) else (capacity, len(sequences))
        if where == len(sequences):
            sequences.append([])
        sequences[where].append(i)
        if room > lengths[i]:
            insort(rooms, (room - lengths[i], where))
    return sorted(sorted(members) for members in sequences)


def of_rank(
    windows: Iterable[tuple[dict[str, Any], list[T]]],
    made: Callable[[T], Packed],
    start_state: Mapping[str, Any] | None,
    rank: int,
    world_size: int,
) -> Iterator[tuple[Packed, dict[str, Any]]]:
    """The sequences of a rank, see :class:`Where`, each with the state that goes on behind it on any number of ranks.

    `windows` begin with that of `start_state`; each is the state in front of it, and what its sequences are `made` of.
    """
    ahead = int((start_state or {}).get("row", 0)) + rank  # sequences to skip from the start of the window
    for begin, members in windows:
        for number in range(ahead, len(members), world_size):
            yield made(members[number]), {**begin, "row": number - rank + world_size}
        ahead -= len(members)
        ahead = ahead if ahead >= 0 else ahead % world_size
