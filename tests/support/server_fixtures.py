"""Servers as fixtures: each is started once for all tests that use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import servers


@dataclass(frozen=True)
class Bucket:
    """An empty bucket on a running server, which the environment of the test points to."""

    server: servers.S3Server
    name: str

    @property
    def uri(self) -> str:
        """``s3://NAME``."""
        return f"s3://{self.name}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """A SeaweedFS server."""
    with servers.s3_server(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def seaweedfs(s3_server: servers.S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> Bucket:
    """A new bucket; the AWS variables are set, and no other configuration of the user's is seen."""
    nothing = str(tmp_path_factory.mktemp("aws") / "none")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    others = {"AWS_CONFIG_FILE": nothing, "AWS_SHARED_CREDENTIALS_FILE": nothing, "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in (s3_server.environment | others).items():
        monkeypatch.setenv(name, value)
    return Bucket(s3_server, s3_server.make_bucket())


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """An empty PostgreSQL; its address is ``user:password@127.0.0.1:port/database``."""
    with servers.postgres_server() as address:
        yield address


@pytest.fixture(scope="session")
def prefect_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.PrefectServer]:
    """A Prefect server on PostgreSQL."""
    with servers.prefect_server(tmp_path_factory.mktemp("prefect"), postgres) as server:
        yield server
