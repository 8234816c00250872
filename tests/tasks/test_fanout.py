"""The fan-out on child processes and on a real Ray: dead, hung and poisonous workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from spiritlm_core.errors import LakeError, ShardFailedError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import StageCall
from spiritlm_core.lake.stage import Resources
from spiritlm_core.recipe import ComputeConfig
from tasks.executors.child import ChildMember
from tasks.pool import FanOut, Pool, Rules, Task
from tasks.worker import Failure, Reply, Wish
from tests.lake.stages import DoubleConfig, numbers_plan
from tests.support.watching import PATIENCE, all_end, descendants, wait_for
from tests.tasks.work import build, run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ray_runtime():
    from tasks.executors.cluster import Runtime

    runtime = Runtime()
    runtime.start()
    yield
    runtime.close()


@pytest.fixture(params=["auto", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request):
    if request.param == "ray":
        request.getfixturevalue("ray_runtime")
    return request.param


def children():
    return descendants(os.getpid(), "tasks.executors.child")


def test_all_shards_are_computed_once_and_no_worker_is_left(tmp_path, executor):
    lake = Lake(tmp_path)
    plan, done = run(lake, DoubleConfig(), executor=executor)
    assert done == dict.fromkeys((job.key for job in plan.jobs), True)
    assert not plan.missing(lake)
    assert not children()


def test_a_dead_worker_is_replaced_and_it_is_said(tmp_path, executor):
    said = []
    lake = Lake(tmp_path / "lake")
    plan, done = run(lake, DoubleConfig(die_on=3, marker=str(tmp_path / "died")), executor=executor, said=said)
    assert (tmp_path / "died").exists()
    assert set(done) == {job.key for job in plan.jobs}
    assert ["the worker process died" in line for line in said if "it is tried again" in line] == [True]


def test_a_hung_worker_is_replaced(tmp_path, executor):
    lake = Lake(tmp_path / "lake")
    config = DoubleConfig(hang_on=5, marker=str(tmp_path / "hung"))
    plan, done = run(lake, config, shard_timeout_seconds=15, executor=executor)
    assert (tmp_path / "hung").exists()
    assert set(done) == {job.key for job in plan.jobs}


def test_a_poison_shard_stops_the_run_in_one_sentence_and_the_others_are_kept(tmp_path, executor):
    lake = Lake(tmp_path / "lake")
    expected = r"^stage doubled: shard .* failed 2 times.* Last error: ValueError: cannot double 1$"
    with pytest.raises(ShardFailedError, match=expected) as found:
        run(lake, DoubleConfig(fail_on=1), attempts=2, executor=executor)
    assert "in process" in str(found.value.__cause__), "the traceback of the worker is the cause"
    with pytest.raises(ShardFailedError, match="failed 2 times.* the worker process died"):
        run(lake, DoubleConfig(die_on=7), attempts=2, executor=executor)
    assert lake.shard_keys("doubled")


@pytest.mark.parametrize(
    ("fault", "text"),
    [("memory", "MemoryError: no memory"), ("disk", "No space left on device"), ("odd", "OddError: 7 is odd")],
)
def test_a_fault_of_a_worker_is_one_sentence(tmp_path, executor, fault, text):
    with pytest.raises(ShardFailedError) as found:
        run(Lake(tmp_path), DoubleConfig(fail_on=1, fault=fault), attempts=1, executor=executor)
    assert text in str(found.value)
    assert "\n" not in str(found.value)


def test_what_the_user_can_act_on_is_not_tried_again(tmp_path, executor):
    said = []
    with pytest.raises(LakeError, match="no such voice"):
        run(Lake(tmp_path), DoubleConfig(fail_on=1, fault="lake"), executor=executor, said=said)
    assert not said


def test_an_artifact_is_built_in_a_worker(tmp_path, executor):
    lake = Lake(tmp_path)
    (artifact, built), again = build(lake, executor)
    assert built
    assert int((lake.artifact_folder(artifact) / "pid.txt").read_text()) != os.getpid()
    assert again == (artifact, False)


def test_a_worker_killed_in_an_artifact_stage_is_replaced(tmp_path, executor):
    said = []
    (artifact, built), _ = build(Lake(tmp_path / "lake"), executor, said=said, die=True, marker=str(tmp_path / "died"))
    assert built
    assert artifact.summary == {"total": 3}
    assert sum("it is tried again" in line for line in said) == 1
    with pytest.raises(ShardFailedError, match="stage sum: the build failed 2 times"):
        build(Lake(tmp_path / "other"), executor, die=True)


def test_progress_of_a_child_is_relayed_and_a_slow_view_does_not_block_it(tmp_path):
    seen = []

    def slow(fraction, message):
        seen.append((fraction, message))
        time.sleep(0.5 if len(seen) < 4 else 0)

    (artifact, _), _ = build(Lake(tmp_path), "auto", progress=slow, reports=200_000)
    assert artifact.summary == {"total": 3}
    assert seen[0] == (0.5, "added")
    assert len(seen) < 200_000


DRIVER = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from spiritlm_core.lake.lake import Lake
from tests.lake.stages import DoubleConfig
from tests.tasks.work import run
run(Lake(sys.argv[1]), DoubleConfig(hang_on=1, marker=sys.argv[2]))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_driver_that_was_killed(tmp_path, sent):
    marker = tmp_path / "hung"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "lake"), str(marker)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    wait_for(marker.exists, driver)
    workers = descendants(driver.pid)
    assert workers
    driver.send_signal(sent)
    driver.wait(PATIENCE)
    assert all_end(workers)


class _Unreadable:
    """A call that can be written but not read, as one of a class that is gone from the files of the program."""

    def __reduce__(self):
        return getattr, ("module", "no_such_class")


def test_a_worker_that_cannot_read_its_call_dies_of_it_and_says_why(tmp_path):
    member = ChildMember(str(tmp_path), Wish())
    try:
        assert replied(member).failure is None
        member.call("compute", (_Unreadable(),))
        failure = replied(member).failure
        assert failure.lost_worker
        assert "exit status 1" in failure.text
        assert "no_such_class" in failure.text
    finally:
        member.kill()


def replied(member):
    assert wait([member.connection], 60), "no reply"
    return member.take()


def test_a_worker_that_cannot_start_ends_the_run_with_its_last_words():
    fan_out = FanOut("nosuch://lake", ComputeConfig(attempts=2))
    call = StageCall.of("tests.lake.stages:Double", DoubleConfig(), {})
    with pytest.raises(ShardFailedError, match="stage doubled: no worker comes up: .*nosuch"):
        fan_out.run_shards(call, numbers_plan((1,)).jobs, Resources(), lambda *_: None)


class _DyingNodes:
    """Hires workers, each on a node that dies before the worker is up."""

    reserves = False
    hired = 0

    def kind(self, wish):
        return wish.stage

    def room(self, wish):
        return 2

    def hire(self, wish):
        self.hired += 1
        return ChildMember.__new__(ChildMember)

    def wait(self, members, seconds):
        time.sleep(0.01)
        return [(member, Reply(failure=Failure.of_death("its node is gone", lost_node=True))) for member in members]


def test_workers_whose_nodes_keep_dying_while_they_start_end_the_run_after_a_while(monkeypatch):
    monkeypatch.setattr("tasks.pool.START_SECONDS", 0.5)
    monkeypatch.setattr(ChildMember, "kill", lambda _: None)
    executor = _DyingNodes()
    with pytest.raises(ShardFailedError, match="no worker comes up within 0 s, because nodes die .*its node is gone"):
        Pool(executor, print).work(Wish("doubled"), [Task("run_shard", (), "shard", print)], Rules(2), print)
    assert executor.hired > 4  # the losses of one node are no reason to give up


def test_inline_stops_at_the_first_error(tmp_path):
    with pytest.raises(ShardFailedError, match="failed once.*cannot double 1"):
        run(Lake(tmp_path), DoubleConfig(fail_on=1), executor="inline")
    _, done = run(Lake(tmp_path), DoubleConfig(), executor="inline")
    assert len(done) == 4


def test_shards_tell_how_far_they_are(tmp_path, executor):
    lake, heard = Lake(tmp_path / "lake"), []
    config = DoubleConfig(seconds=4.0 if executor == "ray" else 0.0)  # Ray's relay is asked once a second
    plan, _ = run(lake, config, executor=executor, on_progress=lambda key, fraction: heard.append((key, fraction)))
    assert sorted(heard) == sorted((key, 0.5) for key in plan.keys)
