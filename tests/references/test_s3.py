"""Models on a real S3 server."""

import hashlib

import pytest

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.reference import resolve
from spiritlm_core.store.uri import open_store
from tests.support.server_fixtures import Bucket

pytestmark = pytest.mark.integration


def test_a_prefix_and_an_object(seaweedfs: Bucket, tmp_path):
    store = open_store(f"{seaweedfs.uri}/models/tiny")
    store.write("config.json", b"{}")
    store.write("deep/model.bin", b"weights")
    whole = resolve(f"{seaweedfs.uri}/models/tiny/", tmp_path / "cache")
    assert (whole.path / "deep" / "model.bin").read_bytes() == b"weights"
    assert resolve(f"file://{whole.path}", tmp_path / "cache").digest == whole.digest
    one = resolve(f"{seaweedfs.uri}/models/tiny/deep/model.bin", tmp_path / "cache")
    assert one.digest == hashlib.sha256(b"weights").hexdigest()
    store.write("deep/model.bin", b"newer")
    assert resolve(f"{seaweedfs.uri}/models/tiny", tmp_path / "cache").digest != whole.digest
    with pytest.raises(ModelReferenceError, match="nothing at that place"):
        resolve(f"{seaweedfs.uri}/models/absent", tmp_path / "cache")


def test_a_server_that_is_gone(seaweedfs: Bucket, tmp_path, monkeypatch):
    open_store(f"{seaweedfs.uri}/m").write("a.bin", b"a")
    first = resolve(f"{seaweedfs.uri}/m", tmp_path / "cache")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert resolve(f"{seaweedfs.uri}/m", tmp_path / "cache") == first
    with pytest.raises(ModelReferenceError, match="cannot be reached"):
        resolve(f"{seaweedfs.uri}/other", tmp_path / "cache")
