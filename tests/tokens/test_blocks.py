"""Drawing from a corpus that memory has no room for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.lake.view import Loader, TableView
from spiritlm_core.tokens.blocks import _READERS, Blocks, _size
from spiritlm_core.tokens.config import SharesConfig, TokensConfig
from spiritlm_core.tokens.corpus import STREAMS, columns_of
from spiritlm_core.tokens.mix import Mixture, training_batches
from tests.support.documents import documents
from tests.tokens.corpora import (
    MIXED as CONFIG,
)
from tests.tokens.corpora import (
    ROWS,
    TEXT_VIEW,
    VOCABULARY,
    as_before_blocks,
    plain,
    random_rows,
    table,
    with_copies,
    without_text,
)

FEW = CONFIG.model_copy(update={"in_memory": 0.05, "window": 4})
ALL = SharesConfig(text=1, speech=2, interleaved=1, asr=1, tts=0.5)
EXAMPLES = FEW.model_copy(update={"shares": ALL})


def sharded(rows: list) -> TableView:
    """A shard for each recording."""
    shards: dict[str, list] = {}
    for row in rows:
        shards.setdefault(str(row["recording_id"]), []).append(row)
    return TableView.of(*map(table, shards.values()))


CORPUS = random_rows(11, recordings=80)
VIEW = sharded(CORPUS)


def batches(count: int, view: TableView = VIEW, config: TokensConfig = FEW, **options: object) -> list:
    options.setdefault("seed", 0)
    return list(islice(training_batches(view, VOCABULARY, config, **options), count))  # type: ignore[arg-type]


def blocks(mixture: Mixture, stream: str) -> int:
    return mixture.streams[stream]._block.shards


def test_a_corpus_with_room_is_drawn_from_whole_and_a_larger_one_in_blocks() -> None:
    whole = Mixture.of(VIEW, VOCABULARY, CONFIG, seed=0)
    few = Mixture.of(VIEW, VOCABULARY, FEW, seed=0)
    assert {blocks(whole, stream) for stream in whole.streams} == {len(VIEW)}
    assert len({id(stream._block.planner) for stream in whole.streams.values()}) == 1
    assert all(blocks(few, stream) < len(VIEW) / 2 for stream in few.streams)
    assert blocks(few, "text") > blocks(few, "interleaved")  # it reads no speech
    sizes = [_size(shard.values()) for shard in VIEW.loaders]
    assert blocks(few, "interleaved") * sum(sizes) / len(VIEW) < 50_000 / 3 / 2 + _READERS * max(sizes)


@pytest.mark.parametrize(("room", "fits"), [(0.3, False), (0.7, False), (0.9, True), (4, True)])
def test_footers_tell_whether_a_corpus_has_room(room: float, fits: bool) -> None:
    read: list[Loader] = []

    @dataclass(frozen=True)
    class Watched:
        load: Loader

        def __call__(self, columns: Sequence[str] | None) -> pa.Table:
            read.append(self)
            return self.load(columns)

        def values(self) -> Mapping[str, int]:
            return self.load.values()

        def digest(self) -> str:
            return self.load.digest()

    alike = [table([row | {"recording_id": name, "utterance_id": name} for row in CORPUS[:4]]) for name in "abcdefghij"]
    view = TableView(tuple(map(Watched, TableView.of(*alike).loaders)), 40)
    size = 10 * _size(view.loaders[0].values())
    whole = Blocks(view, columns_of(view, *STREAMS), "train", room * size, cast("Any", lambda rows: rows)).whole()
    assert (whole is not None) == fits
    assert len(read) == (10 if fits else 0)


@pytest.mark.parametrize("stream", ["text", "speech", "interleaved"])
def test_an_epoch_of_blocks_holds_every_document_once(stream: str) -> None:
    shares = SharesConfig.model_validate({"text": 0, "speech": 0, "interleaved": 0, stream: 1})
    config = FEW.model_copy(update={"shares": shares})
    mixture = Mixture.of(VIEW, VOCABULARY, config, seed=0)
    for epoch in range(2):
        drawn = Counter[tuple[int, ...]]()
        while not mixture.has_shown(epoch + 1):
            drawn.update(tuple(plan.document().ids.tolist()) for plan in mixture.draw())
        made = documents(VIEW, VOCABULARY, config, stream=stream, split="train", seed=0, epoch=epoch)
        assert drawn == Counter(tuple(document.ids.tolist()) for document in made)


def test_going_on_equals_never_having_stopped_on_any_number_of_ranks() -> None:
    whole = batches(110, config=EXAMPLES, text=TEXT_VIEW)
    for at, ranks in ((1, 1), (37, 2), (95, 3)):
        state = json.loads(json.dumps(whole[at - 1][1]))
        for rank in range(ranks):
            rest = batches(4, config=EXAMPLES, text=TEXT_VIEW, start_state=state, rank=rank, world_size=ranks)
            wanted = whole[at + rank : at + rank + 4 * ranks : ranks]
            assert [plain(packed) for packed, _ in rest] == [plain(packed) for packed, _ in wanted]


def test_the_order_depends_on_shards_and_not_on_how_they_are_listed() -> None:
    order = np.random.default_rng(0).permutation(len(VIEW))
    other = TableView(tuple(VIEW.loaders[shard] for shard in order), VIEW.rows)
    assert [plain(packed) for packed, _ in batches(80, other)] == [plain(packed) for packed, _ in batches(80)]
    assert [plain(packed) for packed, _ in batches(80, seed=1)] != [plain(packed) for packed, _ in batches(80)]


def test_a_checkpoint_from_before_there_were_blocks_goes_on_in_its_order() -> None:
    whole = batches(90, config=CONFIG.model_copy(update={"window": 4}))
    state = as_before_blocks(whole[39][1])
    rest = batches(50, start_state=state)
    assert [plain(packed) for packed, _ in rest] == [plain(packed) for packed, _ in whole[40:]]
    again = batches(30, start_state=json.loads(json.dumps(rest[19][1])))
    assert [plain(packed) for packed, _ in again] == [plain(packed) for packed, _ in whole[60:]]


def test_copies_are_drawn_in_blocks_too() -> None:
    view = TableView.of(*(shard.slice(at, 9) for shard in with_copies(ROWS, 2).shards() for at in (0, 9)))
    mixture = Mixture.of(view, VOCABULARY, FEW.model_copy(update={"in_memory": 0.03}), seed=0)
    copies = {plan.planner.copy for _ in range(200) for plan in mixture.draw() if plan.stream != "text"}
    assert copies == {0, 1, 2}
    assert blocks(mixture, "speech") < len(view)


def test_a_stream_whose_documents_are_far_behind_is_found_and_one_without_any_left_out() -> None:
    rows = [row for row in CORPUS if row["split"] == "train" and row.get("reject_stage") is None]
    silent = [without_text(row) for row in rows]
    assert set(Mixture.of(sharded(silent), VOCABULARY, FEW, seed=0).streams) == {"speech"}
    view = sharded([*silent[:-1], rows[-1]])
    found = Mixture.of(view, VOCABULARY, FEW, seed=0)
    assert set(found.streams) == {"text", "speech", "interleaved"}
    at = found.state()
    assert Mixture.of(view, VOCABULARY, FEW, seed=0, state=at).state() == at
    with pytest.raises(SpiritLMError, match="nothing to train on"):
        batches(1, sharded(rows), split="held_out")


def test_a_shard_that_cannot_be_read_in_the_background_stops_training(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    paths = [tmp_path / f"{number}.parquet" for number in range(len(VIEW))]
    for path, shard in zip(paths, VIEW.shards(), strict=True):
        pq.write_table(shard, path)
    stream = training_batches(TableView.of_files(paths), VOCABULARY, FEW, seed=0)
    next(stream)
    for path in paths:
        path.write_bytes(b"gone")
    with pytest.raises((LakeError, OSError, ValueError)):
        list(islice(stream, 400))
