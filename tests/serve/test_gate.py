"""Whom a server answers, by its address."""

from __future__ import annotations

import socket

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from spiritlm_core.serve.body import Gate
from spiritlm_core.serve.errors import ServeConfig

ALL = "0.0.0.0"  # noqa: S104 - no socket is opened
NAME = socket.gethostname().lower()


@pytest.mark.parametrize(
    ("host", "allowed", "name", "origin", "status"),
    [
        (ALL, (), "192.168.7.7:7860", None, 200),
        (ALL, (), NAME, None, 200),
        (ALL, (), "evil.example", None, 403),
        ("::", (), "[fe80::1]:80", None, 200),
        ("127.0.0.1", (), NAME if NAME != "localhost" else "other", None, 403),
        ("192.168.7.7", (), "192.168.7.7", None, 200),
        ("192.168.7.7", (), "192.168.7.8", None, 403),
        ("Box.lan", (), "box.LAN:1", None, 200),
        ("127.0.0.1", ("Proxy.example",), "proxy.example", None, 200),
        ("127.0.0.1", ("proxy.example",), "localhost:1", "https://proxy.example", 200),
        ("127.0.0.1", ("proxy.example",), "localhost:1", "https://other.example", 403),
        ("127.0.0.1", (), "localhost:1", "http://localhost:1", 200),
        ("127.0.0.1", (), "localhost:1", "http://[", 403),
        ("127.0.0.1", (), "localhost:1", "http://localhost:1 https://other.example", 403),
        ("127.0.0.1", (), "localhost:1", "https://other.example http://localhost:1", 403),
    ],
)
def test_names_and_origins(host: str, allowed: tuple[str, ...], name: str, origin: str | None, status: int) -> None:
    app = FastAPI()
    app.add_middleware(Gate, config=ServeConfig(host=host, allow_host=allowed))
    app.get("/")(lambda: "yes")
    headers = [("Host", name), *([("Origin", one) for one in origin.split()] if origin else [])]
    assert TestClient(app).get("/", headers=headers).status_code == status
