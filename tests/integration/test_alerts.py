"""The promise of `spiritlm alerts`: a webhook hears of runs that fail and of stages that reject too much."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.support import servers
from tests.support.servers import REPOSITORY, PrefectServer
from tests.support.watching import PATIENCE, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@contextmanager
def webhook() -> Iterator[tuple[str, list[str]]]:
    """An address on loopback, and the texts that were posted to it."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", heard
    finally:
        server.shutdown()


def spiritlm(server: PrefectServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spiritlm_core.cli", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=server.environment, timeout=PATIENCE
    )


def test_a_webhook_hears_of_failed_runs_and_of_stages_that_reject_too_much(tmp_path: Path) -> None:
    clips, tiny = tmp_path / "clips", REPOSITORY / "tests/integration/tiny.yaml"
    for seed in range(4):
        sound(clips / f"{seed}.flac", voice(2.0, seed), subtype="PCM_16")
        (clips / f"{seed}.txt").write_text("hello there one two three")
    (clips / "broken.flac").write_bytes(b"fLaC is not enough")
    run = ("run", tiny, "--until", "audio", "--set", "compute.executor=inline")
    with servers.prefect_server(tmp_path, None) as server, webhook() as (url, heard):
        for percent in (19, 20):  # the second takes the place of the first: 20 % are rejected, which are not more
            done = spiritlm(server, "alerts", "--webhook", url, "--rejected", percent)
            assert done.returncode == 0, done.stderr
        assert done.stdout.count("spiritlm: ") == 2
        assert "more than 20 % of the new rows" in done.stdout
        assert len(server.call("/automations/filter", {})) == 2
        first = spiritlm(server, *run, "--lake", tmp_path / "lake", "--source", clips)
        assert first.returncode == 0, first.stderr

        (clips / "silent.txt").write_text("hello there")
        sound(clips / "silent.flac", 0 * voice(2.0, 1), subtype="PCM_16")
        again = spiritlm(server, *run, "--lake", tmp_path / "lake", "--source", clips)
        assert again.returncode == 0, again.stderr
        wait_for(lambda: len(heard) >= 1)
        assert [text.split(":")[0] for text in heard] == ["tiny/audio"]
        assert "1 of 1 new rows rejected: {'silent': 1}" in heard[0]

        (tmp_path / "nothing").mkdir()
        failed = spiritlm(server, *run, "--lake", tmp_path / "lake", "--source", tmp_path / "nothing")
        assert failed.returncode == 1, failed.stderr
        wait_for(lambda: len(heard) >= 2)
        assert len(heard) == 2
        assert heard[1].startswith("pipeline/tiny-2")
        assert str(tmp_path / "nothing") in heard[1]

        dashboards = server.call("/artifacts/filter", {"artifacts": {"key": {"any_": ["dashboard-tiny"]}}})
        texts = sorted(artifact["data"].splitlines()[0] for artifact in dashboards)
        assert texts[:2] == ["# Completed", "# Completed"]
        assert any("| audio | 1 | silent |" in artifact["data"] for artifact in dashboards)
