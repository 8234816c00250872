"""The fan-out on a real Ray: dead, hung and poisonous workers."""

from __future__ import annotations

import os

import pytest

from spiritlm_core.errors import ShardFailedError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import StageCall, plan_artifact, plan_table
from spiritlm_core.lake.stage import Resources
from tasks.fanout import FanOut, FanOutSettings
from tests.lake.stages import DoubleConfig, SumConfig
from tests.lake.test_lake import execute, numbers_plan

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ray_runtime():
    from tasks.fanout import start_ray

    start_ray(FanOutSettings())
    import ray  # not before: it reads the settings that `start_ray` makes

    yield
    ray.shutdown()


def run(lake, config, groups=((1, 2), (3, 4), (5, 6), (7, -8)), **settings):
    first, _ = execute(lake, numbers_plan(*groups))
    plan = plan_table(StageCall.of("tests.lake.stages:Double", config, {}), [first])
    fan_out = FanOut(lake.uri, FanOutSettings(workers=2, **settings))
    done = {}
    try:
        fan_out.run_shards(
            plan.call, plan.jobs, Resources(), lambda entry, computed: done.__setitem__(entry.key, computed)
        )
    finally:
        fan_out.release()
    return plan, done


def test_all_shards_are_computed_once(tmp_path, ray_runtime):
    lake = Lake(tmp_path)
    plan, done = run(lake, DoubleConfig())
    assert done == dict.fromkeys((job.key for job in plan.jobs), True)
    assert not plan.missing(lake)


def test_a_dead_worker_is_replaced(tmp_path, ray_runtime):
    lake = Lake(tmp_path / "lake")
    plan, done = run(lake, DoubleConfig(die_on=3, marker=str(tmp_path / "died")))
    assert (tmp_path / "died").exists()
    assert set(done) == {job.key for job in plan.jobs}


def test_a_hung_worker_is_replaced(tmp_path, ray_runtime):
    lake = Lake(tmp_path / "lake")
    plan, done = run(lake, DoubleConfig(hang_on=5, marker=str(tmp_path / "hung")), timeout_seconds=15)
    assert (tmp_path / "hung").exists()
    assert set(done) == {job.key for job in plan.jobs}


def test_a_poison_shard_stops_the_run_and_the_others_are_kept(tmp_path, ray_runtime):
    lake = Lake(tmp_path / "lake")
    with pytest.raises(ShardFailedError, match=r"(?s)stage doubled: shard .* failed 2 times.*cannot double 1"):
        run(lake, DoubleConfig(fail_on=1), attempts=2)
    with pytest.raises(ShardFailedError, match=r"(?s)failed 2 times.*worker process died"):
        run(lake, DoubleConfig(die_on=7), attempts=2)
    assert lake.shard_keys("doubled")


def test_an_artifact_is_built_in_a_worker(tmp_path, ray_runtime):
    lake = Lake(tmp_path)
    first, _ = execute(lake, numbers_plan((1, 2)))
    plan = plan_artifact(StageCall.of("tests.lake.stages:Sum", SumConfig(), {}), {"numbers": first})
    fan_out = FanOut(lake.uri, FanOutSettings())
    artifact, built = fan_out.run_artifact(plan, Resources(), lambda fraction, message: None)
    assert built
    assert int((lake.artifact_folder(artifact) / "pid.txt").read_text()) != os.getpid()
    assert fan_out.run_artifact(plan, Resources(), lambda fraction, message: None) == (artifact, False)
    fan_out.release()
