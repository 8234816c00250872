from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from spiritlm_core.config_files import load_config
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.plan import StageCall, plan_table
from spiritlm_core.plan.graph import RunPlan
from spiritlm_core.recipe import Recipe
from tasks.engine import Run, _largest_first, run_stage
from tasks.progress import Console
from tests.lake.stages import DoubleConfig, execute, numbers_plan
from tests.support.processes import START_SECONDS

RECIPE = Path(__file__).parents[1] / "integration" / "tiny.yaml"


def test_shards_of_much_are_computed_first(tmp_path):
    lake = Lake(tmp_path / "lake")
    numbers, _ = execute(lake, numbers_plan((1,), tuple(range(5000)), (2, 3)))
    jobs = list(plan_table(StageCall.of("tests.lake.stages:Double", DoubleConfig(), {}), [numbers]).jobs)
    jobs = [jobs[0], jobs[2], jobs[1]]
    sizes = lake.shard_sizes("numbers")
    assert sizes[jobs[2].parent_keys[0]] > max(sizes[job.parent_keys[0]] for job in jobs[:2])
    assert _largest_first(lake, jobs)[0] == jobs[2]


@pytest.mark.slow
def test_a_stage_that_fails_stops_the_run_though_an_older_snapshot_names_its_result(tmp_path):
    lake = Lake(tmp_path / "lake")
    numbers, _ = execute(lake, numbers_plan((1, 2)))
    plan = plan_table(StageCall.of("tests.lake.stages:Double", DoubleConfig(), {}), [numbers])
    doubled, _ = execute(lake, plan)
    lake.store.delete(shard_path("doubled", doubled.keys[0]))
    damaged = tmp_path / "lake" / shard_path("numbers", numbers.keys[0])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    recipe = load_config(Recipe, RECIPE.read_text(), "tiny", ["compute.executor=inline"])
    with prefect_test_harness(server_startup_timeout=int(START_SECONDS)):
        run = flow(lambda: run_stage(Run(RunPlan("tiny", {}), lake, recipe.compute, Console()), plan), name="one stage")
        with pytest.raises(SpiritLMError, match=f"{numbers.keys[0]}.parquet is damaged"):
            run()
