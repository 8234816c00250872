"""Grouping is pure, and leaves what was grouped before alone."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.intake.config import ShardingConfig
from spiritlm_core.intake.grouping import group_items
from spiritlm_core.intake.item import Item, digest, identified

CONFIG = ShardingConfig(shard_items=4, shard_bytes=1000)


def _item(number: int, size: int = 100) -> Item:
    sha = digest(number)
    name = f"{sha[:4]}/{number}.wav"
    return identified(Item(name=name, source_uri=f"file:///x/{number}.wav", language="en", sha256=sha, size=size))


ITEMS = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 1500)), max_size=40, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [_item(*pair) for pair in pairs]
)


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
