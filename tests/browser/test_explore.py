"""The page over a lake in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from spiritlm_core.lake.lake import Lake
from tests.support.filled_lake import SAME, name_of
from tests.support.serving import EXPLORE, Served, served

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(filled_lake: Lake) -> Iterator[Served]:
    with served(filled_lake.uri, code=EXPLORE) as found:
        yield found


@pytest.fixture(scope="module")
def seen(server: Served, driven: Callable[..., dict]) -> dict:
    return driven("explore", server)


def test_rows_are_listed_and_filtered(seen: dict) -> None:
    assert "12 rows in 2 shards" in seen["about"]
    assert "There is no column 'nonsense'" in seen["refused"]


def test_a_segment_and_its_units_are_heard(seen: dict) -> None:
    assert name_of(5) in seen["heading"]
    for sound in (seen["sound"], seen["spoken"]):
        assert sound["playable"]
        assert sound["seconds"] > 0.2
    assert seen["sound"]["loudest"] > 0.01


def test_a_copy_is_shown_beside_what_is_kept(seen: dict) -> None:
    assert SAME in seen["rejected"]
    assert name_of(1) in seen["kept"]


def test_two_snapshots_are_compared(seen: dict) -> None:
    assert "2 added, 1 changed, 1 rejected" in seen["difference"]


def test_nothing_is_wider_than_a_phone(seen: dict) -> None:
    assert seen["narrow"]
    assert seen["still"]


def test_nothing_comes_from_elsewhere_and_the_server_ends(seen: dict, server: Served) -> None:
    assert seen["outside"] == []
    assert seen["errors"] == []
    assert server.end() == 0
    assert "Traceback" not in "".join(server.lines)
