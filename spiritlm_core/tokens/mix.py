"""The endless stream of packed training sequences: three streams mixed by token share, epoch after epoch.

The text stream has two sources, transcripts and text documents, each with epochs of its own.

There is one global order of sequences. It is a pure function of the rows, the configuration and the seed, so
ranks, loader processes and restarts all see the same one. It is made window by window: documents for a few hundred
sequences are drawn, packed and shuffled together. A position in it is then the position in front of a window
and a number of sequences, and going on from there costs at most one window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Self

import numpy as np

from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.corpus import STREAMS, Corpus
from spiritlm_core.tokens.counter import combine, key_of
from spiritlm_core.tokens.documents import Document, EpochPlanner, Plan
from spiritlm_core.tokens.pack import Packed, fit, packed
from spiritlm_core.tokens.texts import DOCUMENTS, TextPlanner, Texts
from spiritlm_core.tokens.vocabulary import Vocabulary

State = dict[str, Any]


_Plans = EpochPlanner | TextPlanner


@dataclass
class _Cursor:
    """Where one stream stands: its next run is the `position`-th of its order in `epoch`."""

    epoch: int = 0
    position: int = 0
    tokens: int = 0  # handed out so far


class _Stream:
    """Draws the runs of one stream in a new random order in every epoch."""

    def __init__(self, planner: _Plans, stream: str, cursor: _Cursor) -> None:
        self.cursor = cursor
        self._planner, self._stream = planner, stream
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._keys = self._planner.keys(self._stream, self.cursor.epoch)
        # the order depends on what the runs are, not on where they stand; the spans' draws are another salt away
        self._order = np.argsort(combine(self._keys, 1), kind="stable")

    def has_shown(self, epochs: int) -> bool:
        """Whether every document was handed out so many times."""
        cursor = self.cursor
        return cursor.epoch + (cursor.position == len(self._order)) >= epochs

    def draw(self) -> list[Plan]:
        """The documents of the next run."""
        cursor = self.cursor
        if cursor.position == len(self._order):
            cursor.epoch, cursor.position = cursor.epoch + 1, 0
            self._begin_epoch()
        run = int(self._order[cursor.position])
        plans = self._planner.plans(self._stream, run, int(self._keys[run]))
        cursor.position += 1
        cursor.tokens += sum(plan.length for plan in plans)
        return plans


@dataclass
class Mixture:
    """The global order of sequences from some position on."""

    planner: EpochPlanner  # plans the documents of the recordings
    config: TokensConfig  # context length, window, shares
    seed: int  # of the order
    texts: TextPlanner | None = None  # plans the text documents, if there are any
    streams: dict[str, _Stream] = field(default_factory=dict)
    """The streams with a share and with documents; `DOCUMENTS` is one of them."""
    shares: dict[str, float] = field(default_factory=dict)  # their weights
    window: int = 0  # number of the next window

    @classmethod
    def of(
        cls,
        view: TableView,
        vocabulary: Vocabulary,
        config: TokensConfig,
        *,
        seed: int,
        state: Mapping[str, Any] | None = None,
        split: str = "train",
        text: TableView | None = None,
    ) -> Self:
        """The mixture in front of the window that `state` names; see :func:`training_batches`.

        Raises LakeError: a table and the vocabulary do not match; NothingToTrainOnError: no stream with a share has
        documents.
        """
        state = state or {}
        corpus = Corpus.of(view, split, vocabulary, config.context_length, pairs=config.pairs)
        planner = EpochPlanner(corpus, vocabulary, config, seed)
        texts = None if text is None else TextPlanner(Texts.of(text, split, vocabulary), vocabulary, config, seed)
        mixture = cls(planner, config, seed, texts, window=state.get("window", 0))
        for name, share in _shares(planner, texts, config).items():
            source = texts if name == DOCUMENTS and texts else planner
            if share > 0 and _has_documents(source, name):
                cursor = _Cursor(*state.get("streams", {}).get(name, ()))
                mixture.streams[name], mixture.shares[name] = _Stream(source, name, cursor), share
        if not mixture.streams:
            raise NothingToTrainOnError(
                "there is nothing to train on: no usable row of `sequences` or `text` is in a stream with a share"
            )
        return mixture

    def document(self, plan: Plan) -> Document:
        """The document that a plan stands for, with its ids."""
        source = self.texts if self.texts and plan.stream == DOCUMENTS else self.planner
        return source.document(plan)

    def packed(self, plans: list[Plan]) -> Packed:
        """One training sequence of the documents of one row of :meth:`next_window`."""
        return packed([self.document(plan) for plan in plans], self.config.context_length)

    def has_shown(self, epochs: int) -> bool:
        """Whether every document of every stream was drawn so many times."""
        return all(stream.has_shown(epochs) for stream in self.streams.values())

    def state(self) -> State:
        """Position in front of the next window, JSON-able."""
        cursors = {name: list(astuple(stream.cursor)) for name, stream in self.streams.items()}
        return {"window": self.window, "streams": cursors}

    def next_window(self) -> list[list[Plan]]:
        """The documents of each sequence of the next window, shuffled."""
        plans, tokens = [], 0
        while tokens < self.config.window * self.config.context_length:
            drawn = self.draw()
            plans += drawn
            tokens += sum(plan.length for plan in drawn)
        rows = fit([plan.length for plan in plans], self.config.context_length)
        order = np.argsort(
            combine(np.arange(len(rows), dtype=np.uint64), key_of(self.seed, self.window)), kind="stable"
        )
        self.window += 1
        return [[plans[i] for i in rows[row]] for row in order.tolist()]

    def draw(self) -> list[Plan]:
        """The documents of the next recording or text, of the stream whose token count lags most behind its share."""
        behind = min(self.streams, key=lambda name: self.streams[name].cursor.tokens / self.shares[name])
        return self.streams[behind].draw()


def _shares(planner: EpochPlanner, texts: TextPlanner | None, config: TokensConfig) -> dict[str, float]:
    """The weight of each stream, that of the text stream divided between transcripts and documents."""
    shares: dict[str, float] = {stream: getattr(config.shares, stream) for stream in STREAMS}
    if texts is None or not texts.size:
        return shares
    transcripts, part = planner.size("text"), config.shares.documents
    if part is None or not transcripts:
        part = texts.size / (texts.size + transcripts)
    return {**shares, "text": shares["text"] * (1 - part), DOCUMENTS: shares["text"] * part}


def _has_documents(planner: _Plans, stream: str) -> bool:
    keys = planner.keys(stream, 0).tolist()
    return any(planner.plans(stream, run, key) for run, key in enumerate(keys))


def training_batches(
    view: TableView,
    vocabulary: Vocabulary,
    config: TokensConfig,
    *,
    seed: int,
    start_state: Mapping[str, Any] | None = None,
    rank: int = 0,
    world_size: int = 1,
    split: str = "train",
    text: TableView | None = None,
) -> Iterator[tuple[Packed, State]]:
    """Packed training sequences without end, each with the state that goes on behind it.

    `rank` gets sequences ``rank``, ``rank + world_size``, … of the global order, from `start_state` on, which came with
    a sequence of the same table, configuration and seed, on any number of ranks. Documents of `text` join the text
    stream.

    Raises LakeError: a table and the vocabulary do not match; NothingToTrainOnError: there is nothing to train on;
    ValueError: `rank` is not below `world_size`.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}")
    mixture = Mixture.of(view, vocabulary, config, seed=seed, state=start_state, split=split, text=text)
    ahead = int((start_state or {}).get("row", 0)) + rank  # sequences to skip from the start of the window
    while True:
        before = mixture.state()
        rows = mixture.next_window()
        for row in range(ahead, len(rows), world_size):
            yield mixture.packed(rows[row]), {**before, "row": row - rank + world_size}
        ahead = _carry(ahead, len(rows), world_size)


def _carry(ahead: int, rows: int, world_size: int) -> int:
    """Where this rank's next sequence lies in the next window, after a window of `rows`."""
    if ahead >= rows:
        return ahead - rows
    return (ahead - rows) % world_size
