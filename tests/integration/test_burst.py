"""Runs triggered in a burst, on PostgreSQL and two workers; `burst` triggers more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.burst import burst
from tests.support.servers import PrefectServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_all_runs_of_a_burst_end_and_none_is_twice_at_once_on_one_lake(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    outcome = burst(prefect_server, tmp_path, 8, patience=1500)
    assert (outcome.states, outcome.overlaps, outcome.tables) == ({"COMPLETED": 8}, 0, 8)
