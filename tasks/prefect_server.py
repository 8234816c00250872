"""The embedded Prefect server: one per ``PREFECT_HOME``, on loopback, alive while a run or a UI uses it.

The server is kept by a small supervisor process of its own, so that it outlives the run that started it for
as long as another run needs it, writes down the last task states before it ends, and ends even when a run
is killed. Whoever is alive holds a lock on a file of its own, which ends with the process, however that ends:
a process id may be somebody else's by now.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.failures import one_line
from spiritlm_core.files import is_locked, locked
from tasks.progress import Console

START_SECONDS = 180.0
POLL_SECONDS = 0.5
DRAIN_SECONDS = 2.0
IMPATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "2", "PREFECT_API_REQUEST_TIMEOUT": "20"}
"""This server is on this machine: if it is gone or hangs, it does not come back."""

QUIET = {"PREFECT_LOGGING_LEVEL": "WARNING", "PREFECT_CLI_COLORS": "false"}


class ServerError(SpiritLMError):
    """The embedded Prefect server does not start."""


class Home:
    """The files of one ``PREFECT_HOME``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "spiritlm-server.json"  # address and supervisor of the running server
        self.lock = path / "spiritlm-server.lock"  # held while a server is looked up or started
        self.clients = path / "spiritlm-clients"  # one file per client, locked by it
        self.log = path / "spiritlm-server.log"  # what the server prints


def prefect_home() -> Home:
    """``PREFECT_HOME``, or ``~/.prefect``."""
    return Home(Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser())


@contextmanager
def api(load: str = "prefect") -> Iterator[str]:
    """The address of a Prefect API for the time of the block, also put into ``PREFECT_API_URL``.

    An address that is configured already (``PREFECT_API_URL``, a Prefect profile) is used as it is. The module `load`
    is imported while the server starts.
    Raises ServerError.
    """
    configured = configured_api()
    if configured:
        yield configured
        return
    home = prefect_home()
    with _registered(home):
        with Console().stage("prefect", "starting the Prefect server"):
            url = _find_or_start(home)
            os.environ["PREFECT_API_URL"] = url
            os.environ.update({key: os.environ.get(key, value) for key, value in IMPATIENT.items()})
            importlib.import_module(load)  # takes seconds, and so does the server: let them overlap
            _wait_for(lambda: _healthy(url), home, alive=lambda: _running(home) == url)
        try:
            yield url
        finally:
            os.environ.pop("PREFECT_API_URL", None)


def configured_api() -> str | None:
    """The API address that the user has set, by variable or by profile."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    profiles = prefect_home().path / "profiles.toml"
    if not profiles.is_file():
        return None
    body = tomllib.loads(profiles.read_text(encoding="utf-8"))
    name = os.environ.get("PREFECT_PROFILE", body.get("active", ""))
    url = body.get("profiles", {}).get(name, {}).get("PREFECT_API_URL")
    return str(url) if url else None


@contextmanager
def _registered(home: Home) -> Iterator[None]:
    mine = home.clients / str(os.getpid())
    with contextlib.ExitStack() as held:
        try:
            with locked(home.lock):
                held.enter_context(locked(mine))
        except OSError as error:
            why = one_line(error)
            raise ServerError(f"PREFECT_HOME cannot be used ({why}); set it to a folder that can") from error
        held.callback(mine.unlink, missing_ok=True)
        yield


def _find_or_start(home: Home) -> str:
    with locked(home.lock):
        url = _running(home)
        if url is None:
            url = f"http://127.0.0.1:{_free_port()}/api"
            command = [sys.executable, "-m", "tasks.prefect_server", str(home.path), url]
            with home.log.open("ab") as log:
                subprocess.Popen(  # noqa: S603 - our own module; it must outlive us, hence no `with`
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            _wait_for(lambda: _running(home) is not None, home)
            url = _running(home) or url  # the supervisor of a run that was killed may have been before ours
    return url


def _running(home: Home) -> str | None:
    try:
        return str(json.loads(home.state.read_text())["url"]) if is_locked(home.state) else None
    except (OSError, ValueError):  # it is being written, or deleted
        return None


def _wait_for(condition: Callable[[], bool], home: Home, alive: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        if not alive():
            raise ServerError(
                f"the embedded Prefect server ended while it started{_last_words(home)}; its log is {home.log}. "
                f"Is there room on the disks of {home.path} and of temporary files?"
            )
        time.sleep(0.1)
    raise ServerError(f"the embedded Prefect server did not start within {START_SECONDS:.0f} s; its log is {home.log}")


def _last_words(home: Home) -> str:
    lines = home.log.read_text(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f" ({said[-1][:200]})" if said else ""


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310 - our own loopback address
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the supervisor -------------------------------------------------------------------------------------------


def supervise(home: Home, url: str) -> None:
    """Run the server until nobody uses it; called in the supervisor process."""
    port = url.rsplit(":", 1)[1].removesuffix("/api")
    environment = {**QUIET, **os.environ, "PREFECT_HOME": str(home.path), "PREFECT_UI_API_URL": url}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    if is_locked(home.state):
        return
    with (
        locked(home.state) as state,
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=_end_with_us) as server,  # noqa: S603, PLW1509 - there is one thread
    ):
        state.write(json.dumps({"pid": os.getpid(), "url": url}))
        state.flush()
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            _watch(home, server)
        finally:
            home.state.unlink(missing_ok=True)
            _stop(server)


def _end_with_us() -> None:
    """In the server, before it starts: end when the supervisor does, even by force (Linux alone can do that)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _watch(home: Home, server: subprocess.Popen[bytes]) -> None:
    """Return when the server has ended, or nobody has used it for a moment."""
    idle_since = None
    while server.poll() is None:
        time.sleep(POLL_SECONDS)
        if _clients(home):
            idle_since = None
        elif idle_since is None:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > DRAIN_SECONDS and _unused(home):
            return


def _unused(home: Home) -> bool:
    """Whether there is still no client, under the lock that a new client takes. The state file goes with it."""
    with locked(home.lock):
        if _clients(home):
            return False
        for path in (home.state, *home.clients.iterdir()):
            path.unlink(missing_ok=True)
        return True


def _clients(home: Home) -> list[Path]:
    """The files of the processes that use the server."""
    return [path for path in home.clients.iterdir() if is_locked(path)]


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(timeout=20)
        return
    server.kill()


if __name__ == "__main__":
    supervise(Home(Path(sys.argv[1])), sys.argv[2])
