"""A few nights in a row on a source that changes, one of them with a kill; `soak` runs more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.soak import KEPT, Soak
from tests.support.servers import prefect_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_after_every_night_the_tables_are_those_of_a_rebuild_from_nothing(tmp_path: Path) -> None:
    with prefect_server(tmp_path, None) as server:
        soak = Soak(tmp_path, server.environment, seed=0)
        nights = [soak.night(number) for number in (0, 3, 4, 9)]
    assert [night.differences for night in nights] == [()] * len(nights)
    assert [night.killed for night in nights] == [False, True, False, False]
    assert [night.computed > 0 for night in nights] == [True, True, True, False]
    assert all(night.lake_bytes < (KEPT + 1) * night.fresh_bytes for night in nights)
