"""A server with a token answers those who know it, and counts what it answers for Prometheus."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr, ValidationError
from starlette.websockets import WebSocketDisconnect

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.errors import ServeConfig
from spiritlm_core.serve.routes import create_app
from tests.serve.limits import HOME, LIMITS

TOKEN = "tell-nobody"  # noqa: S105
ROUTES = ("/metrics", "/docs", "/openapi.json", "/v1/model", "/v1/models", "/nothing")


@pytest.fixture(scope="module")
def closed(engine: Engine) -> Iterator[TestClient]:
    config = ServeConfig.model_validate({**LIMITS.model_dump(), "token": TOKEN})
    with TestClient(create_app(engine, config), HOME, raise_server_exceptions=False) as client:
        yield client


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    "sent", [None, "", TOKEN, f"Bearer {TOKEN}x", "Bearer", basic("other"), "Basic ???", "Bearer ä"]
)
def test_nothing_but_health_is_open(closed: TestClient, sent: str | None) -> None:
    headers = {} if sent is None else {"Authorization": sent.encode()}
    assert closed.get("/health", headers=headers).status_code == 200
    for route in ROUTES:
        found = closed.get(route, headers=headers)
        assert (found.status_code, found.headers["www-authenticate"]) == (401, 'Basic realm="spiritlm"'), route
        assert TOKEN not in found.text
    assert closed.post("/v1/generate", json={"parts": []}, headers=headers).status_code == 401
    error = closed.post("/v1/chat/completions", json={}, headers=headers).json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "wrong_token")


@pytest.mark.parametrize("sent", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_who_knows_the_token_is_answered(closed: TestClient, sent: str) -> None:
    found = [closed.get(route, headers={"Authorization": sent}).status_code for route in ROUTES]
    assert found == [200, 200, 200, 200, 200, 404]


def test_a_websocket_without_the_token_is_closed_and_that_is_said_once(
    closed: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WebSocketDisconnect) as refused, closed.websocket_connect("/v1/live"):
        pass
    assert refused.value.code == 1008
    assert [record.message.partition(":")[0] for record in caplog.records] == ["a WebSocket is refused"]


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(ServeConfig(token=TOKEN))
    with pytest.raises(ValidationError, match="printable ASCII"):
        ServeConfig(token="schlüssel")  # noqa: S106
    with pytest.raises(SpiritLMError, match=r"^option token: a token is printable ASCII") as refused:
        ServeConfig.of_options(token=SecretStr("schlüssel"))
    assert "schlüssel" not in str(refused.value)


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_requests_are_counted_by_route_and_status(engine: Engine) -> None:
    with TestClient(create_app(engine, LIMITS), HOME) as client:
        client.post("/v1/generate", json={"parts": [{"kind": "text", "text": "one"}], "max_new_tokens": 3})
        before = figures(client)
        good = {"parts": [{"kind": "text", "text": "press one"}], "output": "text", "max_new_tokens": 3}
        answer = client.post("/v1/generate", json=good).json()
        client.post("/v1/generate", json={"parts": "nonsense"})
        client.post("/v1/nothing/at/all")
        client.post("/v1/say", content=bytes(LIMITS.max_bytes + 100_000))
        after = figures(client)
    assert after["spiritlm_requests_total", "/v1/generate", "200"] == 2
    assert after["spiritlm_requests_total", "/v1/generate", "422"] == 1
    assert after["spiritlm_request_seconds_count", "/v1/generate"] == 3
    assert after["spiritlm_requests_total", "/v1/say", "413"] == 1
    assert after["spiritlm_queue_places",] == LIMITS.queue
    assert after["spiritlm_queue_depth",] == 0
    model = ("spiritlm_steps_total", engine.default)
    assert 0 < after[model] - before[model] <= answer["new_tokens"] + 1
    assert after["process_resident_memory_bytes",] > 1e6
