"""The endless stream of packed training sequences: streams mixed by token share, epoch after epoch.

The text stream has two sources, transcripts and text documents, each with epochs of its own.

There is one global order of sequences. It is a pure function of the rows, the configuration and the seed (and, of a
corpus that memory has no room for, of the shards), so ranks, loader processes and restarts all see the same one. It is
made window by window: documents for a few hundred sequences are drawn, packed and shuffled together. A position in it
is then the position in front of a window and a number of sequences, and going on from there costs at most one window
and the blocks that the streams stand in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np

from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.blocks import Block, Load, loads
from spiritlm_core.tokens.config import SharesConfig, TokensConfig
from spiritlm_core.tokens.corpus import STREAMS, Corpus, columns_of
from spiritlm_core.tokens.counter import combine, key_of
from spiritlm_core.tokens.documents import EpochPlanner, Plan
from spiritlm_core.tokens.pack import Packed, fit, of_rank, packed
from spiritlm_core.tokens.texts import DOCUMENTS, TEXT_COLUMNS, TextPlanner, Texts
from spiritlm_core.tokens.vocabulary import Vocabulary

State = dict[str, Any]


@dataclass
class _Cursor:
    """Where one stream stands: its next run is the `position`-th of the block's order in `epoch`."""

    epoch: int = 0
    position: int = 0
    tokens: int = 0  # handed out so far
    shard: int = 0  # place of the block's first shard in the epoch's order


class _Stream:
    """Draws the runs of one stream, block after block, in a new random order in every epoch."""

    def __init__(self, load: Load, stream: str, cursor: _Cursor, loader: Executor) -> None:
        self.cursor = cursor
        self._load, self._stream, self._loader = load, stream, loader
        self._begin(load(cursor.epoch, cursor.shard))

    def _begin(self, block: Block) -> None:
        self._block = block
        self._next: Future[Block] | None = None
        self._keys = block.planner.keys(self._stream, self.cursor.epoch)
        # the order depends on what the runs are, not on where they stand; the spans' draws are another salt away
        self._order = np.argsort(combine(self._keys, 1), kind="stable")

    def _go_on(self) -> None:
        block = self._following().result()
        self.cursor.epoch, self.cursor.shard = self._behind
        self.cursor.position = 0
        self._begin(block)

    def _following(self) -> Future[Block]:
        """The next block, which is read in the background."""
        self._next = self._next or self._loader.submit(self._load, *self._behind)
        return self._next

    @property
    def _behind(self) -> tuple[int, int]:
        """Epoch, and place of the first shard, of the next block."""
        return (self.cursor.epoch + 1, 0) if self._block.last else (self.cursor.epoch, self._block.end)

    def has_documents(self) -> bool:
        """Whether there is any document; blocks in front of the first one are passed over."""
        wraps = self.cursor.shard > 0
        while not self._block_has_documents():
            if self._block.last and not wraps:
                return False
            wraps &= not self._block.last
            self._go_on()
        return True

    def _block_has_documents(self) -> bool:
        planner = self._block.planner
        return any(planner.plans(self._stream, run, key) for run, key in enumerate(self._keys.tolist()))

    @property
    def size(self) -> float:
        """Tokens of an epoch, without markers, BOS and EOS; of a table in blocks, as many as this one lets expect."""
        return self._block.planner.size(self._stream) * self._block.of / max(1, self._block.shards)

    def has_shown(self, epochs: int) -> bool:
        """Whether every document was handed out so many times."""
        cursor = self.cursor
        return cursor.epoch + (self._block.last and cursor.position == len(self._order)) >= epochs

    def draw(self) -> list[Plan]:
        """The documents of the next run."""
        cursor = self.cursor
        while cursor.position == len(self._order):
            self._go_on()
        self._following()
        run = int(self._order[cursor.position])
        plans = self._block.planner.plans(self._stream, run, int(self._keys[run]))
        cursor.position += 1
        cursor.tokens += sum(plan.length for plan in plans)
        return plans


@dataclass
class Mixture:
    """The global order of sequences from some position on."""

    config: TokensConfig  # context length, window, shares
    seed: int  # of the order
    streams: dict[str, _Stream]  # those with a share and with documents; `DOCUMENTS` is one of them
    shares: dict[str, float]  # their weights
    part: float  # of the text stream that text documents have
    room: float  # most bytes of each table in memory; of a run that began when there was no bound, infinite
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
        room = math.inf if state and "in_memory" not in state else config.in_memory * 1e6
        state = state or {}
        loader = ThreadPoolExecutor(1, "blocks")  # one block at a time: to make one takes twice its memory
        streams: dict[str, _Stream] = {}
        for name, load in _loads(view, text, vocabulary, config, seed, split, room).items():
            stream = _Stream(load, name, _Cursor(*state.get("streams", {}).get(name, ())), loader)
            if stream.has_documents():
                streams[name] = stream
        part = state.get("documents") or _part(streams, config.shares)
        shares = {stream: getattr(config.shares, stream) for stream in STREAMS}
        shares |= {"text": config.shares.text * (1 - part), DOCUMENTS: config.shares.text * part}
        streams = {name: stream for name, stream in streams.items() if shares[name] > 0}
        if not streams:
            raise NothingToTrainOnError(
                "there is nothing to train on: no usable row of `sequences` or `text` is in a stream with a share"
            )
        return cls(config, seed, streams, shares, part, room, state.get("window", 0))

    def packed(self, plans: list[Plan]) -> Packed:
        """One training sequence of the documents of one row of :meth:`next_window`."""
        return packed([plan.document() for plan in plans], self.config.context_length)

    def has_shown(self, epochs: int) -> bool:
        """Whether every document of every stream was drawn so many times."""
        return all(stream.has_shown(epochs) for stream in self.streams.values())

    def state(self) -> State:
        """Position in front of the next window, JSON-able."""
        cursors = {name: list(astuple(stream.cursor)) for name, stream in self.streams.items()}
        bound = {} if self.room == math.inf else {"in_memory": self.config.in_memory, "documents": self.part}
        return {"window": self.window, "streams": cursors, **bound}

    def windows(self) -> Iterator[tuple[State, list[list[Plan]]]]:
        """The windows without end, each with the position in front of it."""
        while True:
            yield self.state(), self.next_window()

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


def _loads(
    view: TableView,
    text: TableView | None,
    vocabulary: Vocabulary,
    config: TokensConfig,
    seed: int,
    split: str,
    room: float,
) -> dict[str, Load]:
    """How each stream with a share gets its blocks. Of each, there is one to draw from and one that is being read."""

    def recordings(rows: TableView) -> EpochPlanner:
        corpus = Corpus.of(rows, split, vocabulary, config.context_length, pairs=config.pairs)
        return EpochPlanner(corpus, vocabulary, config, seed)

    def texts(rows: TableView) -> TextPlanner:
        return TextPlanner(Texts.of(rows, split, vocabulary), vocabulary, config, seed)

    spoken = {name: columns_of(view, name) for name in STREAMS if getattr(config.shares, name) > 0}
    written = {DOCUMENTS: TEXT_COLUMNS} if text is not None and config.shares.text > 0 else {}
    part = room / (2 * len({**spoken, **written}))
    found = loads(view, split, recordings, columns_of(view, *STREAMS), spoken, room, part, seed)
    return found | loads(text, split, texts, TEXT_COLUMNS, written, room, part, seed) if text is not None else found


def _part(streams: Mapping[str, _Stream], shares: SharesConfig) -> float:
    """The part of the text stream that comes from text documents."""
    transcripts, documents = (streams[name].size if name in streams else 0 for name in ("text", DOCUMENTS))
    if shares.documents is None or not transcripts or not documents:
        return documents / ((transcripts + documents) or 1)
    return shares.documents


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
    yield from of_rank(mixture.windows(), mixture.packed, start_state, rank, world_size)
