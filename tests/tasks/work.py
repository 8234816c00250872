"""Small stages on a fan-out."""

from __future__ import annotations

from spiritlm_core.lake.plan import StageCall, plan_artifact, plan_table
from spiritlm_core.lake.stage import Resources
from spiritlm_core.recipe import ComputeConfig
from tasks.pool import FanOut
from tests.lake.stages import SumConfig, execute, no_progress, numbers_plan


def run(lake, config, groups=((1, 2), (3, 4), (5, 6), (7, -8)), said=None, on_progress=no_progress, **settings):
    first, _ = execute(lake, numbers_plan(*groups))
    plan = plan_table(StageCall.of("tests.lake.stages:Double", config, {}), [first])
    fan_out = FanOut(lake.uri, ComputeConfig(**{"workers": 2, **settings}), ([] if said is None else said).append)
    done = {}
    try:
        fan_out.run_shards(
            plan.call,
            plan.jobs,
            Resources(),
            lambda entry, computed: done.__setitem__(entry.key, computed),
            on_progress,
        )
    finally:
        fan_out.close()
    return plan, done


def build(lake, executor, progress=no_progress, said=None, cpus=2, **config):
    first, _ = execute(lake, numbers_plan((1, 2)))
    plan = plan_artifact(StageCall.of("tests.lake.stages:Sum", SumConfig(**config), {}), {"numbers": first})
    settings = ComputeConfig(executor=executor, attempts=2)
    fan_out = FanOut(lake.uri, settings, ([] if said is None else said).append)
    try:
        return fan_out.run_artifact(plan, Resources(cpus), progress), fan_out.run_artifact(
            plan, Resources(cpus), progress
        )
    finally:
        fan_out.close()
