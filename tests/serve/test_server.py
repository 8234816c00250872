"""The server as a process: many requests at once, clients that leave, signals, and a port that is taken."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spiritlm_core.audio.codec import encode_wav
from tests.finetune.conftest import sound
from tests.serve.processes import Served, served, start

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
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
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
    assert httpx.get(f"{server.url}/health").json()["queue_depth"] == 0
    one_by_one = [httpx.get(f"{server.url}/health").status_code for _ in range(3)]
    assert one_by_one == [200, 200, 200]


def test_a_client_that_leaves_frees_its_place(server: Served) -> None:
    long = {"parts": [{"kind": "text", "text": "one"}], "output": "speech", "temperature": 1, "max_new_tokens": 4000}
    for stream in (False, True):
        with pytest.raises(httpx.TimeoutException), httpx.Client(base_url=server.url, timeout=0.02) as client:
            client.post("/v1/generate", json={**long, "stream": stream})
    for _ in range(50):
        if httpx.get(f"{server.url}/health").json()["queue_depth"] == 0:
            break
        time.sleep(0.1)
    assert httpx.get(f"{server.url}/health").json()["queue_depth"] == 0


def test_a_body_of_two_gigabytes_is_refused_at_once(server: Served) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for header in ("Content-Length: 2000000000", "Transfer-Encoding: chunked"):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                f"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n{header}\r\n\r\n".encode()
            )
            if "chunked" in header:
                piece = b"10000\r\n" + b"\0" * 0x10000 + b"\r\n"
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
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(start)
        connection.settimeout(0.5)
        for _ in range(40):
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


def test_a_port_that_is_taken(server: Served, speaking: Path) -> None:
    process = start(speaking, "--port", server.url.rpartition(":")[2])
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.count("\n")) == (1, 1), output
    assert "cannot be used: Address already in use" in output


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_after_what_is_under_way(speaking: Path, sig: int) -> None:
    with served(speaking, "--no-page") as found:
        started = time.monotonic()
        request = {"parts": [{"kind": "text", "text": "one"}], "output": "speech", "max_new_tokens": 100}
        with httpx.stream("POST", f"{found.url}/v1/generate", json={**request, "stream": True}, timeout=30) as answer:
            pieces = answer.iter_text()
            next(pieces)
            found.process.send_signal(sig)
            rest = "".join(pieces)
        assert "event: done" in rest
        assert found.process.wait(20) == 0
        assert time.monotonic() - started < 20
    assert found.lines[-1] == "closed\n"
    assert "Traceback" not in "".join(found.lines)


STUCK = """
import sys, time
from spiritlm_core.serve.server import Server
from spiritlm_core.serve.settings import ServeConfig

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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", STUCK, str(speaking)]
    process = subprocess.Popen(
        command, env=environment, cwd=Path(__file__).parents[2], text=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/health", timeout=60).json()["ready"]
        assert list(tmp_path.glob("spiritlm-page-*"))
        with pytest.raises(httpx.TimeoutException):
            httpx.request(method, url + route, json={"parts": []} if method == "POST" else None, timeout=2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
    assert not list(tmp_path.glob("spiritlm-page-*"))
