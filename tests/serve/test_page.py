"""What a page of another site, or somebody with a terminal, can get out of the page: none of this machine's files."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spiritlm_core.serve.guard import UPLOAD
from tests.support.serving import Served, served
from tests.support.watching import PATIENCE

PRIVATE = "no upload"
META = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def server(speaking: Path) -> Iterator[Served]:
    with served(speaking, "--max-upload-mb", 1) as found:
        yield found
        assert found.end() == 0
        assert "Traceback" not in "".join(found.lines)


@pytest.fixture(scope="module")
def page(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def uploaded(page: httpx.Client, clip: bytes) -> str:
    """The path of an upload that no session has used."""
    (path,) = page.post(UPLOAD, files={"files": ("../my clip.wav", clip)}).json()
    return str(path)


@pytest.fixture(scope="module")
def add_audio(page: httpx.Client) -> dict[str, int]:
    """Which function of the page takes a recording."""
    config = page.get("/config").json()
    (audio,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == "audio"]
    first = next(d for d in config["dependencies"] if d["inputs"][-1:] == [audio] and len(d["inputs"]) == 2)
    return {"fn_index": first["id"]}


def join(page: httpx.Client, call: dict[str, Any], file: Any, session: str = "one", **options: Any) -> httpx.Response:
    body = {"data": [None, file], "session_hash": session, **call}
    return page.post("/gradio_api/queue/join", json=body, **options)


def outcome(page: httpx.Client, session: str = "one") -> str:
    """What the page is told about the work of its session."""
    said = ""
    with page.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            said += line
            if "process_completed" in line:
                return said
    return said


def healthy(page: httpx.Client) -> bool:
    return page.get("/health").json()["ready"] is True


def test_an_upload_becomes_a_turn_of_its_session_and_of_no_other(
    page: httpx.Client, add_audio: dict[str, int], uploaded: str, clip: bytes
) -> None:
    assert Path(uploaded).name == "my clip.wav"
    url = f"{page.base_url}/gradio_api/file={uploaded}"
    assert join(page, add_audio, {"path": uploaded, "url": url, "meta": META}).status_code == 200
    assert uploaded in outcome(page)
    assert page.get(f"/gradio_api/file={uploaded}").content == clip
    for file in ({"path": uploaded, "meta": META}, {"path": uploaded}):
        assert join(page, add_audio, file, "two").status_code == 403


@pytest.mark.parametrize("meta", [{"meta": META}, {}], ids=["a file", "an object"])
@pytest.mark.parametrize(
    "path",
    [
        "{secret}",
        "file://{secret}",
        "/dev/zero",
        "/proc/self/environ",
        "{folder}",
        "{link}",
        "{uploads}/../../../{secret}",
        "{uploaded}/../../../../{secret}",
        "{uploaded}\u0000",
        "http://127.0.0.1:{port}/clip.wav",
        "HTTPS://localhost:{port}/clip.wav",
        "",
        7,
        ["{secret}"],
    ],
)
def test_no_other_file_is_read(
    page: httpx.Client, add_audio: dict[str, int], uploaded: str, tmp_path: Path, path: Any, meta: dict[str, Any]
) -> None:
    (tmp_path / "secret.wav").write_text(PRIVATE)
    (tmp_path / "link.wav").symlink_to(tmp_path / "secret.wav")
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.05)
        names = {"secret": tmp_path / "secret.wav", "folder": tmp_path, "link": tmp_path / "link.wav"}
        names |= {"uploaded": uploaded, "uploads": Path(uploaded).parent, "port": elsewhere.getsockname()[1]}
        given = path.format(**names) if isinstance(path, str) else path
        for file in ({"path": given, **meta}, {"path": uploaded, "url": given, **meta}, [{"deep": {"path": given}}]):
            assert join(page, add_audio, file).status_code == 403, file
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    if isinstance(given, str) and given:
        answer = page.get(f"/gradio_api/file={given.replace(chr(0), '%00')}")
        assert answer.status_code in (403, 404), answer.text
        assert not answer.is_redirect
    assert healthy(page)


@pytest.mark.parametrize(
    "body",
    [
        '{"data": [null, {"path": "UP", "path": "/dev/zero", "meta": {"_type": "x"}}], "session_hash": "x"}',
        '{"data": [null, {"path": "/dev/zero"}], "session_hash": "x", "simple_format": true}',
        '{"data": [[null], [{"path": "/dev/zero"}]], "session_hash": "x", "batched": true}',
        '{"data": [null, null], "event_data": {"path": "/dev/zero"}, "session_hash": "x"}',
        '{"data": [null, null]}',
        '{"data": [null, null], "session_hash": ["x"]}',
        '{"data": [null, null], "fn_index": 999, "session_hash": "x"}',
        '{"data": [null, null], "fn_index": -1, "session_hash": "x"}',
        '{"data": [null, null], "fn_index": true, "session_hash": "x"}',
        '{"data": null, "fn_index": 1, "session_hash": "x"}',
        '{"data": [null, NaN], "fn_index": 1, "session_hash": "x"}',
        '{"data": [null, 1e999], "fn_index": 1, "session_hash": "x"}',
        '{"data": [null, "\\ud800"], "fn_index": 1, "session_hash": "x"}',
        "[" * 50_000 + "]" * 50_000,
        "nonsense",
        '{"data": "' + "x" * 1_100_000 + '"}',
    ],
    ids=range(16),
)
def test_other_bodies_are_refused(page: httpx.Client, uploaded: str, body: str) -> None:
    kind = {"content-type": "application/json"}
    answer = page.post("/gradio_api/queue/join", content=body.replace("UP", uploaded), headers=kind)
    assert answer.status_code in (403, 413, 422), answer.text
    utf_16 = page.post("/gradio_api/queue/join", content=body.encode("utf-16"), headers=kind)
    assert utf_16.status_code in (403, 413, 422), utf_16.text
    assert healthy(page)


def test_only_the_routes_of_the_page_are_there(page: httpx.Client, add_audio: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_text(PRIVATE)
    file = {"path": str(tmp_path / "secret.wav"), "meta": META}
    body = {"data": [None, file], "session_hash": "x", **add_audio}
    for route in ("run/predict", "api/predict", "call/add_audio", "call/v2/add_audio", "run/add_audio/"):
        assert page.post(f"/gradio_api/{route}", json=body).status_code == 404
    for route in ("component_server", "component_server/", "stream/x", "process_recording", "vibe-edit", "queue/join/"):
        assert page.post(f"/gradio_api/{route}", json=body).status_code in (404, 405)
    for route in ("proxy=http://localhost/", f"file/{file['path']}", "custom_component/x/client/y/z", "dev/reload"):
        assert page.get(f"/gradio_api/{route}").status_code == 404
    for route in ("/monitoring", "/login", "//gradio_api/queue/join", "/gradio_api/../gradio_api/call/x"):
        assert page.post(route, json=body).status_code in (404, 405)
    for route in ("/", "/config", "/theme.css", "/gradio_api/info", "/docs", "/health"):
        assert page.get(route).status_code == 200, route


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:7860", "localhost.evil.example", "10.1.2.3", "[::2]", "["]
)
def test_a_name_that_is_not_its_own_is_refused(page: httpx.Client, name: str) -> None:
    for method, route in (("GET", "/"), ("GET", "/health"), ("POST", "/v1/generate"), ("POST", UPLOAD)):
        assert page.request(method, route, headers={"Host": name}).status_code == 403


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "page.localhost"])
def test_names_of_this_machine_are_its_own(page: httpx.Client, name: str) -> None:
    assert page.get("/health", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json"])
def test_another_site_cannot_ask_through_a_browser(
    page: httpx.Client, add_audio: dict[str, int], origin: str, kind: str
) -> None:
    headers = {"Origin": origin, "Content-Type": kind}
    body = json.dumps({"parts": [], "data": [None, None], "session_hash": "x", **add_audio})
    for route in ("/v1/generate", "/v1/say", "/gradio_api/queue/join", "/gradio_api/cancel"):
        assert page.post(route, content=body, headers=headers).status_code == 403
    own = {**headers, "Origin": str(page.base_url).rstrip("/")}
    assert page.post("/gradio_api/queue/join", content=body, headers=own).status_code == (
        200 if "json" in kind else 415
    )


def test_uploads_have_limits(page: httpx.Client) -> None:
    for size in (1_200_000, 5_000_000):
        assert page.post(UPLOAD, files={"files": ("big.wav", b"\0" * size)}).status_code == 413
    assert page.post(UPLOAD, content=b"x").status_code == 415
    many = {f"files{i}": ("x.wav", b"x") for i in range(40)}
    assert page.post(UPLOAD, files=many).status_code == 400
    assert healthy(page)
