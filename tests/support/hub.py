"""A small Hugging Face hub on this machine: repositories in memory, read and written by the hub's own client."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".bin", ".h5", ".flac", ".parquet")


@dataclass
class Repository:
    """One commit after the other; of files only the last ones."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: int = 1

    @property
    def sha(self) -> str:
        return f"{self.commits:040x}"


@dataclass
class Hub:
    """What the hub holds, by ``models/ORG/NAME`` and ``datasets/ORG/NAME``, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    writer: str | None = None  # the token that those who write must have; None: anybody may
    stop: Callable[[], None] = lambda: None  # from then on it cannot be reached


def name_of(name: str, data: bytes) -> str:
    """Large files go by their sha256, the others by what git calls them."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    hub.stop = stop
    try:
        yield hub
    finally:
        stop()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._read()

    def do_GET(self) -> None:
        self._read()

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.asked.append(self.path)
        if self.hub.writer and self.headers.get("Authorization") != f"Bearer {self.hub.writer}":
            return self._send(401, {"error": "Invalid credentials"})
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(data))
        if parts == ["api", "validate-yaml"]:
            return self._send(200, {"errors": [], "warnings": []})
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self._batch(json.loads(data))
        repository = self.hub.repositories["/".join(parts[1:4])]
        if parts[4] == "preupload":
            files = [{"path": file["path"], "shouldIgnore": False, "oid": None,
                      "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
                     for file in json.loads(data)["files"]]  # fmt: skip
            return self._send(200, {"files": files})
        return self._commit(repository, data, "/".join(parts[2:4]))

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append(self.path)
        self.hub.blobs[hashlib.sha256(data).hexdigest()] = data
        self._send(200, {})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, Repository(private=bool(asked.get("private"))))
        self._send(status, {"url": f"{self.hub.url}/{name.removeprefix('models/')}"})

    def _batch(self, asked: dict[str, Any]) -> None:
        def one(wanted: dict[str, Any]) -> dict[str, Any]:
            have = {} if wanted["oid"] in self.hub.blobs else {"actions": {"upload": {"href": f"{self.hub.url}/lfs"}}}
            return {"oid": wanted["oid"], "size": wanted["size"], **have}

        self._send(200, {"transfer": "basic", "objects": [one(wanted) for wanted in asked["objects"]]})

    def _commit(self, repository: Repository, data: bytes, name: str) -> None:
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1
        url = f"{self.hub.url}/{name}/commit/{repository.sha}"
        self._send(200, {"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""})

    def _read(self) -> None:
        self.hub.asked.append(self.path)
        path = self.path.partition("?")[0].strip("/")
        for name, repository in self.hub.repositories.items():
            resolve = f"{name.removeprefix('models/')}/resolve/{repository.sha}/"
            if path == f"api/{name}/tree/main":
                return self._send(200, [self._entry(*file) for file in repository.files.items()])
            if path == f"api/{name}" or path.startswith(f"api/{name}/revision/"):
                siblings = [{"rfilename": file} for file in repository.files]
                about = {"id": "/".join(name.split("/")[1:]), "sha": repository.sha, "private": repository.private}
                return self._send(200, {**about, "siblings": siblings})
            if path.startswith(resolve) and (file := path.removeprefix(resolve)) in repository.files:
                data = repository.files[file]
                headers = {"X-Repo-Commit": repository.sha, "ETag": f'"{name_of(file, data)}"'}
                return self._send(200, data, headers)
        return self._send(404, {}, {"X-Error-Code": "RepoNotFound"})

    @staticmethod
    def _entry(path: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(data), "oid": name_of("", data)}

    def _send(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
