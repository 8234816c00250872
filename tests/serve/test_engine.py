"""The queue: as many places as there are, work in order, and what nobody waits for is dropped."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.lm.generate.content import TextSegment
from spiritlm_core.serve.asking import Give, Pieces
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.replies import Reply


@pytest.fixture
def engine(spirit: SpiritLM) -> Iterator[Engine]:
    engine = Engine({"one": spirit}, places=2)
    yield engine
    engine.close()
    assert not engine.ready


def test_places(engine: Engine) -> None:
    with engine.place():
        with engine.place(), pytest.raises(RequestError, match="queue is full") as error, engine.place():
            pass
        assert (error.value.status, error.value.headers) == (429, {"Retry-After": "1"})
        assert engine.depth == 1
        with engine.place():
            assert engine.depth == 2
    assert engine.depth == 0


def test_order_and_errors(engine: Engine, spirit: SpiritLM) -> None:
    done: list[int] = []
    tickets = [engine.submit(lambda given, i=i: (done.append(i), given)[1]) for i in range(5)]
    failing = engine.submit(lambda _: 1 // 0)
    assert [ticket.future.result(60) for ticket in tickets] == [spirit] * 5
    assert done == list(range(5))
    with pytest.raises(ZeroDivisionError):
        failing.future.result(60)
    assert engine.call(lambda _: 3, "one", 60) == 3, "the thread lives on"
    with pytest.raises(RequestError, match="there is one") as error:
        engine.submit(lambda _: 1, "two")
    assert error.value.status == 404


def test_late(engine: Engine) -> None:
    hold = threading.Event()
    engine.submit(lambda _: hold.wait(60))
    with pytest.raises(RequestError, match="not answered within") as error:
        engine.call(lambda _: 1, None, 0.1)
    assert error.value.status == 504
    ran: list[int] = []
    waiting = engine.submit(lambda _: ran.append(1))
    waiting.give_up()
    hold.set()
    assert engine.call(lambda _: 2, None, 60) == 2
    assert ran == []


def test_work_under_way_is_dropped_before_the_next_token(engine: Engine) -> None:
    tokens: list[object] = []
    started = threading.Event()

    def endless(spirit: SpiritLM) -> None:
        while True:
            for piece in spirit.generate_stream("press one", "speech", max_new_tokens=50, temperature=1.0):
                tokens.append(piece)
                started.set()

    ticket = engine.submit(endless)
    assert started.wait(60)
    ticket.give_up()
    with pytest.raises(RequestError, match="ended"):
        ticket.future.result(60)
    seen = len(tokens)
    time.sleep(0.05)
    assert len(tokens) == seen
    assert engine.call(lambda spirit: spirit.generate("press", "text", max_new_tokens=2).finish, None, 60)


def test_an_answer_that_outlives_the_server_is_dropped_without_a_word(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    hold = threading.Event()

    def work(_: SpiritLM, give: Give) -> Reply:
        hold.wait(60)
        give(TextSegment("late"))
        raise ValueError("ended")

    async def asked() -> Pieces:
        return Pieces(engine, work, None, 60)

    pieces = asyncio.run(asked())  # whose loop is closed behind it
    hold.set()
    assert isinstance(pieces.ticket.future.exception(60), ValueError)
    assert engine.call(lambda _: 3, None, 60) == 3
    assert caplog.records == []


def test_close(spirit: SpiritLM) -> None:
    hooks = len(spirit.model._forward_pre_hooks)
    engine = Engine({"one": spirit}, places=2)
    hold = threading.Event()
    engine.submit(lambda _: hold.wait(60))
    waiting = engine.submit(lambda _: 1)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine.ready:  # until then what waits could still begin
        time.sleep(0.01)
    hold.set()
    closing.join()
    assert waiting.future.cancelled()
    assert len(spirit.model._forward_pre_hooks) == hooks
    assert not engine.ready
    for ask in (lambda: engine.submit(lambda _: 1), lambda: engine.place().__enter__()):
        with pytest.raises(RequestError, match="being ended"):
            ask()
