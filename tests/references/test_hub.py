"""The hub's own client against a small server that speaks its protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from spiritlm_core.references.content import content_digest
from spiritlm_core.references.hub import wanted

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"other",
    "README.md": b"card",
    "sub/vocab.txt": b"vocab",
}


def name_of(name, data):
    """Large files go by their sha256, the others by what git calls them."""
    if name.endswith(("safetensors", "bin", "h5")):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


class Hub(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        Hub.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/name"):
            info = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            return self.send(200, json.dumps(info).encode(), body=body)
        name = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if name in FILES:
            etag = f'"{name_of(name, FILES[name])}"'
            return self.send(200, FILES[name], body=body, headers={"X-Repo-Commit": COMMIT, "ETag": etag})
        return self.send(404, b"{}", body=body, headers={"X-Error-Code": "RepoNotFound"})

    def send(self, code, data, *, body, headers=None):
        self.send_response(code)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def resolved(reference, endpoint, home):
    code = (
        "import sys; from spiritlm_core.references.reference import resolve; from pathlib import Path\n"
        "found = resolve(sys.argv[1], Path(sys.argv[2]))\n"
        "print(found.digest); print(*sorted(p.name for p in found.path.rglob('*') if p.is_file()))"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        check=False,
        args=[sys.executable, "-c", code, reference, str(home / "cache")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def test_a_snapshot_is_fetched_and_used_again_without_the_hub(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    first = resolved("hf://org/name", endpoint, tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.split()[1:] == ["config.json", "model.safetensors", "vocab.txt"]
    assert not any("pytorch_model" in path for path in Hub.asked)
    absent = resolved("hf://org/absent", endpoint, tmp_path)
    assert "no such repository" in absent.stderr.splitlines()[-1]
    hub.shutdown()
    hub.server_close()
    again = resolved("hf://org/name", endpoint, tmp_path)
    assert again.stdout == first.stdout, again.stderr
    other = resolved("hf://org/other", endpoint, tmp_path)
    assert "cannot be reached and no copy is cached" in other.stderr


@pytest.mark.parametrize("reference", ["hf://org/name", f"hf://org/name@{COMMIT}"])
@pytest.mark.parametrize("name", ["model.safetensors", "sub/vocab.txt"])
def test_a_damaged_file_is_fetched_again(hub, tmp_path, reference, name):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    assert resolved(reference, endpoint, tmp_path).returncode == 0
    (file,) = tmp_path.rglob(name)
    file.resolve().write_bytes(FILES[name].upper())
    again = resolved(reference, endpoint, tmp_path)
    assert again.returncode == 0, again.stderr
    assert file.read_bytes() == FILES[name]
    file.resolve().write_bytes(FILES[name].upper())
    hub.shutdown()
    hub.server_close()
    assert "no copy is cached" in resolved(reference, endpoint, tmp_path).stderr


def test_a_pinned_repository_has_the_digest_of_a_folder_with_the_same_files(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    taken = tmp_path / "copy"
    for name in ("config.json", "model.safetensors", "sub/vocab.txt"):
        (taken / name).parent.mkdir(parents=True, exist_ok=True)
        (taken / name).write_bytes(FILES[name])
    whole, one = content_digest(taken), hashlib.sha256(b"weights").hexdigest()
    assert resolved(f"hf://org/name#sha256={whole}", endpoint, tmp_path).stdout.split()[0] == whole
    part = resolved(f"hf://org/name#sha256={one}&files=model.safetensors", endpoint, tmp_path)
    assert part.stdout.split() == [one, "model.safetensors"]
    assert "not the pinned one" in resolved(f"hf://org/name#sha256={'0' * 64}", endpoint, tmp_path).stderr


def test_one_format_of_weights_is_taken():
    assert wanted(["pytorch_model.bin", "config.json", "flax_model.msgpack"]) == ["config.json", "pytorch_model.bin"]
    assert wanted(["model.safetensors", "pytorch_model.bin", "a.gguf"]) == ["model.safetensors"]
    several = ["a.safetensors", "model.safetensors.index.json", "b.bin", "b.bin.index.json"]
    assert wanted(several) == ["a.safetensors", "model.safetensors.index.json"]
    assert wanted(["a.gguf", "README.md"]) == ["a.gguf"]
