"""Grouping is pure, leaves what was grouped before alone, and is the same in columns as one by one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.intake import grouping, item
from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.grouping import ItemRows, items_table
from spiritlm_core.intake.item import RECORDINGS, digest
from spiritlm_core.intake.recordings import Recordings
from tests.support import items as plain
from tests.support.items import Item, identified, items_of

CONFIG = ShardingConfig(shard_items=4, shard_bytes=1000)


def _item(number: int, size: int = 100) -> Item:
    sha = digest(number)
    name = f"{sha[:4]}/{number}.wav"
    return identified(Item(name=name, source_uri=f"file:///x/{number}.wav", language="en", sha256=sha, size=size))


ITEMS = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 1500)), max_size=40, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [_item(*pair) for pair in pairs]
)


def group_items(items: Sequence[Item], kept: Sequence[frozenset[str]], config: ShardingConfig) -> list[list[Item]]:
    """The groups as lists of items, none of them empty."""
    table, named = items_table(items, RECORDINGS), {item.key: item for item in items}
    costs = Recordings((), "en", config).costs(table).to_numpy()
    old, new = grouping.group_items(table, costs, [pa.array(sorted(keys), pa.string()) for keys in kept], config)
    rows = [pickle.loads(pickle.dumps(ItemRows(table, places)))() for places in (*old, *new) if len(places)]
    return [[named[key] for key in group["key"].to_pylist()] for group in rows]


def _keys(groups: list[list[Item]]) -> list[frozenset[str]]:
    return [frozenset(item.key for item in group) for group in groups]


@given(ITEMS)
def test_every_item_is_in_one_group_within_bounds(items: list[Item]) -> None:
    groups = group_items(items, (), CONFIG)
    assert sorted(item.key for group in groups for item in group) == sorted(item.key for item in items)
    assert all(group for group in groups)
    assert all(len(group) <= 4 for group in groups)
    assert all(len(group) == 1 or sum(item.cost for item in group) <= 1000 for group in groups)


@given(ITEMS, st.randoms(use_true_random=False))
def test_order_of_input_is_irrelevant(items: list[Item], rng: random.Random) -> None:
    shuffled = list(items)
    rng.shuffle(shuffled)
    assert group_items(shuffled, (), CONFIG) == group_items(items, (), CONFIG)
    kept = _keys(group_items(items, (), CONFIG))[::2]
    assert group_items(shuffled, kept, CONFIG) == group_items(items, kept, CONFIG)


@given(ITEMS)
def test_same_items_again_change_nothing(items: list[Item]) -> None:
    first = group_items(items, (), CONFIG)
    assert group_items(items, _keys(first), CONFIG) == first


@given(ITEMS)
def test_adding_one_item_adds_one_group(items: list[Item]) -> None:
    first = group_items(items, (), CONFIG)
    new = _item(999)
    assert group_items([new, *items], _keys(first), CONFIG) == [*first, [new]]


@given(ITEMS.filter(bool), st.integers(0, 39))
def test_removing_one_item_touches_its_group_only(items: list[Item], index: int) -> None:
    first = group_items(items, (), CONFIG)
    gone = items[index % len(items)]
    rest = [item for item in items if item is not gone]
    expected = [[item for item in group if item is not gone] for group in first]
    assert group_items(rest, _keys(first), CONFIG) == [group for group in expected if group]


@given(ITEMS.filter(bool), st.integers(0, 39))
def test_renaming_a_file_changes_no_group(items: list[Item], index: int) -> None:
    first = group_items(items, (), CONFIG)
    old = items[index % len(items)]
    renamed = identified(Item(name="zz", source_uri="file:///zz", language="en", sha256=old.sha256, size=old.size))
    again = group_items([renamed if item is old else item for item in items], _keys(first), CONFIG)
    assert [[item.key for item in group] for group in again] == [[item.key for item in group] for group in first]


def test_cost_of_a_stretch_is_its_length() -> None:
    item = identified(Item(name="a", source_uri="a", language="en", sha256="0", size=10**9, start=2.0, end=4.0))
    assert item.cost == 64_000


WHO = st.sampled_from([None, "ann", "bob"])
STRETCH = st.sampled_from([(None, None), (1.0, None), (0.0, 2.5), (1.0, 4.0), (-1.0, None), (float("nan"), 1.0)])
MESSY = st.lists(
    st.builds(
        lambda name, sha, stretch, channel, who, text, error, size: Item(
            name=name, source_uri=f"file:///{name}", language="en", sha256=None if error else sha, size=size,
            start=stretch[0], end=stretch[1], channel=channel, speaker=who, text=text, error=error,
        ),
        st.sampled_from("abcdefghij"), st.sampled_from(["0" * 64, "1" * 64, "2" * 64, "3" * 64]), STRETCH,
        st.sampled_from([None, None, 0, 1]), WHO, WHO, st.sampled_from([None, None, None, "cannot be read"]),
        st.integers(0, 400_000),
    ),
    max_size=30,
)  # fmt: skip
"""Listings with copies, stretches, bad files and bad stretches."""
BOUNDS = st.builds(ShardingConfig, shard_items=st.integers(1, 5), shard_bytes=st.integers(1, 500_000))


def _listed(items: Sequence[Item]) -> list[Item]:
    return items_of(item.reject_duplicates(items_table(items, RECORDINGS)))


@given(MESSY)
def test_duplicates_are_rejected_in_columns_as_one_by_one(items: list[Item]) -> None:
    named = [identified(one) for one in items]
    once = plain.reject_duplicates(named)
    assert _listed(named) == plain.in_order(once)
    twice = [*once, *map(identified, items[::2])]  # of another source that lists some of them, too
    assert _listed(twice) == plain.in_order(plain.reject_duplicates(twice))


@given(MESSY, MESSY, BOUNDS, st.integers(1, 3))
def test_groups_in_columns_are_those_one_by_one(
    before: list[Item], after: list[Item], config: ShardingConfig, share: int
) -> None:
    first = plain.reject_duplicates(map(identified, before))
    assert group_items(first, (), config) == plain.group_items(first, (), config)
    kept = _keys(plain.group_items(first, (), config))
    kept += [frozenset([*keys, "gone"]) for keys in kept[::2]]  # in an earlier shard, too
    second = plain.reject_duplicates(map(identified, [*before[::share], *after]))
    assert group_items(second, kept, config) == plain.group_items(second, kept, config)
