"""The server as a process: many requests at once, clients that leave, signals, and a port that is taken."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets import ConnectionClosed
from websockets.sync.client import connect

from spiritlm_core.audio.codec import encode_wav
from tests.support.serving import Served, served, start
from tests.support.small_model import sound
from tests.support.watching import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.integration]
REQUESTS = 200
GROWTH = 24_000_000  # bytes that 400 requests may add to the memory of the process after a warm-up


@pytest.fixture(scope="module")
def server(speaking: Path) -> Iterator[Served]:
    with served(speaking, "--no-page", "--queue", 8, "--max-upload-mb", 1, "--max-new-tokens", 4000) as found:
        yield found


def ask(client: httpx.AsyncClient, number: int, clip: bytes) -> asyncio.Future[httpx.Response]:
    """One of several kinds of bounded requests, good and bad."""
    text = {"parts": [{"kind": "text", "text": "press one"}], "max_new_tokens": 5, "seed": number}
    bodies = (
        ("/v1/generate", {"json": {**text, "output": "text"}}),
        ("/v1/tokenize", {"content": clip, "headers": {"content-type": "audio/wav"}}),
        ("/v1/generate", {"json": {**text, "output": "speech"}}),
        ("/v1/generate", {"json": {**text, "stream": True}}),
        ("/v1/generate", {"json": {"parts": "nonsense"}}),
    )
    path, content = bodies[number % len(bodies)]
    return asyncio.ensure_future(client.post(path, **content))


async def burst(url: str, count: int) -> Counter[int]:
    """Statuses of `count` requests at once; a refusal has a message and, if it is 429, says when to come again."""
    clip = encode_wav(sound("low", 1))
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        responses = await asyncio.gather(*(ask(client, i, clip) for i in range(count)))
    for response in responses:
        if response.status_code != 200:
            assert response.json()["error"]["message"]
            assert response.status_code != 429 or int(response.headers["retry-after"]) >= 1
    return Counter(response.status_code for response in responses)


def test_two_hundred_at_once(server: Served) -> None:
    """None is lost, memory stays, errors are 429 or 4xx; those refused succeed when they come again."""
    asyncio.run(burst(server.url, REQUESTS))
    before = server.resident
    statuses: Counter[int] = Counter()
    for _ in range(2):
        statuses += asyncio.run(burst(server.url, REQUESTS))
    growth = server.resident - before
    figures = f"{dict(statuses)}, {before / 1e6:.0f} MB before, {growth / 1e6:+.1f} MB after"
    assert sum(statuses.values()) == 2 * REQUESTS
    assert set(statuses) <= {200, 422, 429}
    assert statuses[200] >= 8
    assert growth < GROWTH, figures
    wait_for(lambda: server.depth == 0)
    one_by_one = [httpx.get(f"{server.url}/health", timeout=PATIENCE).status_code for _ in range(3)]
    assert one_by_one == [200, 200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(speaking: Path, stream: bool) -> None:
    """Its answer would take ten minutes: a token of this server takes five seconds."""
    request = {"parts": [{"kind": "text", "text": "one"}], "output": "speech"}
    long = json.dumps({**request, "max_new_tokens": 120, "stream": stream})
    with served(speaking, code=SLOW) as server:
        leaving = http.client.HTTPConnection(server.url.removeprefix("http://"))
        leaving.request("POST", "/v1/generate", long, {"Content-Type": "application/json"})
        wait_for(lambda: server.depth == 1, server.process)
        leaving.close()
        short = httpx.post(f"{server.url}/v1/generate", json={**request, "max_new_tokens": 1}, timeout=PATIENCE)
        assert short.status_code == 200
        wait_for(lambda: server.depth == 0)


def test_a_body_of_two_gigabytes_is_refused_at_once(server: Served) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for header in ("Content-Length: 2000000000", "Transfer-Encoding: chunked"):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(
                f"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n{header}\r\n\r\n".encode()
            )
            if "chunked" in header:
                piece = b"10000\r\n" + b"\0" * 0x10000 + b"\r\n"
                with contextlib.suppress(ConnectionError):  # the answer may come before the last piece
                    for _ in range(20):
                        connection.sendall(piece)
            answer = ""
            while not answer.endswith("}") and (piece := connection.recv(4096)):
                answer += piece.decode()
        assert answer.startswith("HTTP/1.1 413"), answer
        assert "too_large" in answer


@pytest.mark.parametrize(
    "start", [b"", b"GET /health HTTP/1.1\r\nX: ", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET"]
)
def test_a_head_that_does_not_end_is_given_up(server: Served, start: bytes) -> None:
    """Also behind a request that was answered, and though more of it comes all the time."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(start)
        connection.settimeout(0.5)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if start:
                    connection.sendall(b"x")
                if connection.recv(4096) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("the connection is still open")


def test_a_message_that_is_no_text_is_said_in_a_line(speaking: Path) -> None:
    with served(speaking, "--no-page") as found, connect(f"{found.url.replace('http', 'ws', 1)}/v1/live") as live:
        live.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed):
            live.recv(PATIENCE)
        wait_for(lambda: "Invalid UTF-8" in "".join(found.lines))
        assert found.end() == 0
    assert "Traceback" not in "".join(found.lines)


def test_a_port_that_is_taken(server: Served, speaking: Path) -> None:
    process = start(speaking, "--port", server.url.rpartition(":")[2])
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output.count("\n")) == (1, 1), output
    assert "cannot be used: Address already in use" in output


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_after_what_is_under_way(speaking: Path, sig: int) -> None:
    with served(speaking, "--no-page") as found:
        request = {"parts": [{"kind": "text", "text": "one"}], "output": "speech", "max_new_tokens": 100}
        with httpx.stream(
            "POST", f"{found.url}/v1/generate", json={**request, "stream": True}, timeout=PATIENCE
        ) as answer:
            pieces = answer.iter_text()
            next(pieces)
            found.process.send_signal(sig)
            rest = "".join(pieces)
        assert "event: done" in rest
        assert found.process.wait(PATIENCE) == 0
    assert found.lines[-1] == "closed\n"
    assert "Traceback" not in "".join(found.lines)


SLOW = """
import sys, time
from spiritlm_core.serve.server import Server
from spiritlm_core.serve.errors import ServeConfig

with Server(ServeConfig(port=0, page=False, timeout=1000)) as server:
    server.load([sys.argv[1]])
    (spirit,) = server._engine.models.values()
    spirit.model.register_forward_pre_hook(lambda *_: time.sleep(5))
    print(server.url, flush=True)
    server.run()
"""


STUCK = """
import sys, time
from spiritlm_core.serve.server import Server
from spiritlm_core.serve.errors import ServeConfig

class Holding(Server):
    def app(self):
        app = super().app()

        @app.get("/hold")
        async def hold():
            time.sleep(1000)

        app.router.routes.insert(0, app.router.routes.pop())  # before the page, which takes all routes
        return app

with Holding(ServeConfig(port=0, grace=1)) as server:
    server.load([sys.argv[1]])
    server._engine.submit(lambda _: time.sleep(1000))
    print(server.url, flush=True)
    server.run()
"""


@pytest.mark.parametrize(("method", "route"), [("POST", "/v1/generate"), ("GET", "/hold")], ids=["work", "event loop"])
def test_a_signal_ends_it_whatever_holds_it(speaking: Path, tmp_path: Path, method: str, route: str) -> None:
    """Work that never ends, or an event loop that is held, as by a file without end; no file of the page is left."""
    with served(speaking, code=STUCK, TMPDIR=str(tmp_path)) as server:
        assert httpx.get(f"{server.url}/health", timeout=PATIENCE).json()["ready"]
        assert list(tmp_path.glob("spiritlm-page-*"))
        with pytest.raises(httpx.TimeoutException):
            httpx.request(method, server.url + route, json={"parts": []} if method == "POST" else None, timeout=2)
        assert server.end() == 0
    assert not list(tmp_path.glob("spiritlm-page-*"))
