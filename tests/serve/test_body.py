"""Bodies that do not arrive, or are too large, whatever the application does with them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from spiritlm_core.serve.body import BodyLimit
from spiritlm_core.serve.errors import ServeConfig

FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'


async def reads(scope: Any, receive: Any, send: Any) -> None:
    """An application that knows nothing of limits."""
    async with Request(scope, receive).form() as form:
        await JSONResponse(sorted(form))(scope, receive, send)


def answered(pieces: Iterator[bytes], seconds: float) -> list[dict[str, Any]]:
    """What is sent to a client whose body, for which it has so many `seconds`, comes in `pieces`, and then no more."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        if piece is None:
            await asyncio.sleep(60)
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    limit = BodyLimit(reads, ServeConfig(max_upload_mb=0.1, upload_timeout=seconds))  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(limit(scope, receive, send), 50))
    return sent


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((), 408),
        ((FORM,), 408),
        ((FORM, *[b"\0"] * 10_000), 408),
        ((FORM, *[b"\0" * 50_000] * 10), 413),
    ],
    ids=["nothing", "a beginning", "drop by drop", "too much"],
)
def test_the_answer_is_one_and_the_connection_is_closed(pieces: tuple[bytes, ...], status: int) -> None:
    start, body = answered(iter(pieces), seconds=0.2 if status == 408 else 50)
    assert start["status"] == status
    assert (b"connection", b"close") in start["headers"]
    assert b'"message"' in body["body"]
