"""Recordings on the web: fetched once, within bounds, and one that cannot be had costs a row."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.errors import SourceError
from spiritlm_core.intake import web
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.grouping import items_table
from spiritlm_core.intake.item import RECORDINGS
from spiritlm_core.intake.statcache import StatCache
from tests.audio.files import sound_bytes
from tests.audio.synthetic import voice
from tests.support.items import Item, list_items


def _wav(seed: int) -> bytes:
    return sound_bytes(0.1 * np.random.default_rng(seed).standard_normal(4000), "WAV", subtype="PCM_16")


class _Server(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    asked: Counter[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()
        for at in range(0, len(self._body()), 4096) if self.command == "GET" else ():
            with suppress(ConnectionError):  # whoever asked has heard enough
                self.wfile.write(self._body()[at : at + 4096])
            time.sleep(0.2 if "slow" in self.path else 0)

    def _body(self) -> bytes:
        return self.files.get(self.path.partition("?")[0], b"")

    def _answer(self) -> None:
        self.asked[f"{self.command} {self.path}"] += 1
        known = self.path.partition("?")[0] in self.files
        if self.path == "/loop.wav":
            self.send_response(302)
            self.send_header("Location", "/loop.wav")
        elif self.command == "HEAD" and "no_head" in self.path:
            self.send_response(405)
        else:
            self.send_response(200 if known else 404)
        if known and "no_length" not in self.path:
            self.send_header("Content-Length", str(len(self._body())))
        if known and "no_head" not in self.path:
            self.send_header("ETag", f'"{hash(self._body())}"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _serving(files: dict[str, bytes]) -> Iterator[tuple[str, Counter[str]]]:
    """Address of a server of `files`, and how often each was asked for."""
    asked: Counter[str] = Counter()
    handler = type("Handler", (_Server,), {"files": files, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _list(path: Path | str, cache: StatCache | None = None) -> list[Item]:
    return list_items(parse_source(str(path)), "en", cache or StatCache())


def _lines(path: Path, *uris: str) -> Path:
    path.write_text("".join(f'{{"path": "{uri}", "text": "hello {n}"}}\n' for n, uri in enumerate(uris)))
    return path


def test_recordings_are_fetched_and_not_asked_for_again(tmp_path: Path) -> None:
    files = {"/a.wav": _wav(1), "/b c.wav": _wav(2), "/no_head.wav": _wav(3), "/no_length.wav": _wav(4)}
    with _serving({name.replace(" ", "%20"): data for name, data in files.items()}) as (at, asked):
        uris = [f"{at}/a.wav?token=x", f"{at}/b%20c.wav", f"{at}/no_head.wav", f"{at}/no_length.wav"]
        cache, manifest = StatCache(), _lines(tmp_path / "m.jsonl", *uris)
        first = _list(manifest, cache)
        assert [(item.error, item.text) for item in first] == [(None, f"hello {n}") for n in range(4)]
        assert len({item.sha256 for item in first}) == 4
        assert [item.key for item in _list(manifest, cache)] == [item.key for item in first]
        assert asked["GET /a.wav?token=x"] == 1
        assert asked["GET /no_head.wav"] == 2  # nobody can say whether it changed


def test_a_recording_on_the_web_becomes_a_segment(tmp_path: Path) -> None:
    with _serving({"/a.wav": sound_bytes(voice(2.0), "WAV", subtype="PCM_16")}) as (at, asked):
        items = _list(_lines(tmp_path / "m.jsonl", f"{at}/a.wav"))
        stage = AudioStage(AudioConfig(), {})
        stage.setup()
        (row,) = stage.process(items_table(items, RECORDINGS)).to_pylist()
        assert (row["text"], row["reject_reason"]) == ("hello 0", None)
        assert asked["GET /a.wav"] == 1


def test_an_address_that_gives_nothing_is_a_rejected_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_BYTES", 100_000)
    files = {
        "/big.wav": b"x" * 100_001,
        "/no_length_big.wav": b"x" * 100_001,
        "/a.wav": _wav(1),
    }
    with _serving(files) as (at, _):
        names = ["gone.wav", "big.wav", "no_length_big.wav", "loop.wav", "a.wav"]
        bad = ["http://127.0.0.1:1/a.wav", "http://", "https://exa mple/a.wav"]
        items = _list(_lines(tmp_path / "m.jsonl", *(f"{at}/{name}" for name in names), *bad))
    errors = {item.source_uri.removeprefix(at): item.error or "" for item in items}
    assert errors.pop("/a.wav") == ""
    for name, reason in {
        "/gone.wav": "127.0.0.1 answered 404", "/big.wav": "larger than", "/no_length_big.wav": "larger than",
        "/loop.wav": "redirects",
        bad[0]: "refused", bad[1]: "cannot be read", bad[2]: "cannot be read",
    }.items():  # fmt: skip
        assert reason in errors.pop(name)
    assert not errors


def test_a_download_that_takes_too_long_is_a_rejected_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_SECONDS", 0.3)
    with _serving({"/slow.wav": b"x" * 50_000}) as (at, _):
        (item,) = _list(_lines(tmp_path / "m.jsonl", f"{at}/slow.wav"))
    assert "takes longer than 0.3 s" in (item.error or "")


def test_a_manifest_on_the_web_names_files_beside_it() -> None:
    files = {"/set/m.csv": b"path,text\nclips/a.wav,hello\n", "/set/clips/a.wav": _wav(1)}
    with _serving(files) as (at, _):
        (item,) = _list(f"{at}/set/m.csv")
        assert (item.error, item.text, item.source_uri) == (None, "hello", f"{at}/set/clips/a.wav")
        with pytest.raises(SourceError, match=r"gone.csv: 127.0.0.1 answered 404"):
            _list(f"{at}/set/gone.csv")
        with pytest.raises(SourceError, match="a web address cannot be listed: give a manifest"):
            _list(f"{at}/set")
