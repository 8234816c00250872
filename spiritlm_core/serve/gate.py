"""Which requests are meant for this server: those that call it by a name of its own, and come from no other site."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.settings import ServeConfig

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


class Gate:
    """Middleware: refuses what a web page of another site sends through the browser of somebody on this machine.

    A name that was pointed at this machine (DNS rebinding) is found out by ``Host``, a form or script of another site
    by ``Origin``, which browsers always send with what they post.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self.app, self._everywhere = app, config.host in _EVERYWHERE
        self._added = config.allow_host
        self._own = {"localhost", config.host.lower(), *config.allow_host}
        if self._everywhere:
            self._own |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        error = None if scope["type"] == "lifespan" else self._refusal(Headers(scope=scope))
        if error is None:
            await self.app(scope, receive, send)
        else:
            await JSONResponse(error.to_dict(), error.status)(scope, receive, send)

    def _refusal(self, headers: Headers) -> RequestError | None:
        host = headers.get("host")
        if host is not None and not self._is_own(_name(f"//{host}")):
            message = f"this server is not called {host:.60}: start it with --allow-host to let it be called so"
            return RequestError(403, "wrong_host", message)
        for origin in headers.getlist("origin"):
            own = host is not None and parted(origin).netloc.lower() == host.lower()
            if not own and _name(origin) not in self._added:
                message = f"a page of {origin:.60} may not use this server: see --allow-host"
                return RequestError(403, "wrong_origin", message)
        return None

    def _is_own(self, name: str) -> bool:
        if name in self._own or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._everywhere  # numbers cannot be pointed elsewhere
        except ValueError:
            return False


def _name(url: str) -> str:
    return parted(url).hostname or ""


def parted(url: str) -> SplitResult:
    """The parts of an address; of what is none they are empty."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
