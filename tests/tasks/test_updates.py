"""A Prefect server that is slow or gone: views may stop, the work does not wait."""

from __future__ import annotations

import threading
import time

import prefect.settings  # noqa: F401 - as in a flow run; it takes seconds
import pytest

from tasks.artifacts import Updates


def test_calls_are_made_in_order_and_in_the_context_of_the_caller():
    found: list[int] = []
    updates = Updates()
    for number in range(5):
        updates.put(lambda number=number: found.append(number))
    updates.flush()
    assert found == [0, 1, 2, 3, 4]


def test_nobody_waits_for_a_call_that_hangs():
    release, reached = threading.Event(), threading.Event()
    updates = Updates()
    updates.put(lambda: (reached.set(), release.wait(60)))
    assert reached.wait(60)
    later: list[str] = []
    updates.put(lambda: later.append("sent"))
    updates.flush(seconds=0.2)
    assert later == []
    release.set()
    updates.flush()
    assert later == ["sent"]


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), ValueError("what?")])
def test_a_failure_is_said_once_and_the_next_calls_are_dropped(error, capsys):
    updates, calls = Updates(), []

    def fail() -> None:
        calls.append(time.monotonic())
        raise error

    for _ in range(20):
        updates.put(fail)
        updates.flush()
    assert len(calls) == 1
    assert capsys.readouterr().err.count("the Prefect server does not answer") == 1


def test_the_account_of_a_run_is_sent_after_calls_that_failed_and_waited_for():
    updates, sent = Updates(), []
    updates.put(lambda: 1 / 0)
    updates.flush()
    updates.put(lambda: sent.append("a view"))
    updates.put(lambda: (time.sleep(0.5), sent.append("the account")), account=True)
    updates.flush(seconds=0.0)
    assert sent == ["the account"]


def test_a_full_queue_drops_what_is_new_and_keeps_no_caller_waiting():
    release = threading.Event()
    updates, sent = Updates(), []
    updates.put(lambda: release.wait(60))
    for number in range(1000):
        updates.put(lambda number=number: sent.append(number))
    release.set()
    updates.flush()
    assert sent
    assert sent == list(range(len(sent)))
