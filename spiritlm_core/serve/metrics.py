"""Figures of a server for Prometheus: requests, how long they take, the queue, and the work of the models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spiritlm_core.serve.engine import Engine

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds


class Metrics(Collector):
    """What is counted of one server; ``GET /metrics`` shows it."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.registry = engine, CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.requests = Counter("spiritlm_requests", "Requests that were answered.", ("route", "status"), **own)
        self.seconds = Histogram(
            "spiritlm_request_seconds", "Seconds until the end of an answer.", ("route",), buckets=_BUCKETS, **own
        )
        self.first = Histogram(
            "spiritlm_first_byte_seconds", "Seconds until an answer begins.", ("route",), buckets=_BUCKETS, **own
        )
        Gauge("spiritlm_queue_depth", "Requests that have a place.", **own).set_function(lambda: engine.depth)
        Gauge("spiritlm_queue_places", "Places that there are.", **own).set(engine.places)
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What the engine counts itself."""
        passes = CounterMetricFamily("spiritlm_steps", "Forward passes of a model, one per token.", labels=["model"])
        for name, count in self._engine.steps.items():
            passes.add_metric([name], count)
        yield passes
        yield CounterMetricFamily("spiritlm_busy_seconds", "Seconds that models worked.", value=self._engine.busy)

    def add(self, app: FastAPI) -> None:
        """Measure all requests of `app`, and add the route."""
        app.add_middleware(_Measured, metrics=self)

        @app.get("/metrics", tags=["about"], response_class=Response)
        async def metrics() -> Response:
            """Requests, times, the queue and memory, in the format of Prometheus."""
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _route(scope: Scope) -> str | None:
    """The route of a request, also of one that was refused before it was looked for; None of one of the page."""
    if "route" in scope:
        return getattr(scope["route"], "path", None)
    routes = [route for route in scope["app"].routes if isinstance(route, Route)]
    return next((route.path for route in routes if route.matches(scope)[0] != Match.NONE), None)


class _Measured:
    """Middleware: counts requests, and how long they take. The page's are one route, those of no route another."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, first = time.monotonic(), 499, 0.0

        async def sent(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.monotonic() - started
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            route = _route(scope) or ("other" if status == 404 else "page")
            self._metrics.requests.labels(route, status).inc()
            if first:
                self._metrics.first.labels(route).observe(first)
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
