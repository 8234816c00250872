"""The page in a real browser: Chromium without a window, driven by Playwright; infra/browser.sh installs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import EXAMPLES, Verdict, write_verdicts
from tests.support.serving import Served, served
from tests.support.small_model import sound

Driven = Callable[..., dict]
pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(speaking: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model that brings a recording to try, and whose evaluation says that it does not transcribe well."""
    judged = Path(shutil.copytree(speaking, tmp_path_factory.mktemp("judged") / "model"))
    poor = Verdict.of("transcribe", "word error rate", Estimate(1.2, 1.1, 1.3), {"nothing": 1.0},
                      on="held-out recordings", items=9, better=False)  # fmt: skip
    write_verdicts(judged, [poor])
    (judged / "examples").mkdir()
    (judged / "examples/1.flac").write_bytes(encode_wav(sound("low", 2, 1.0)))
    (judged / EXAMPLES).write_text(json.dumps({"audio": "1.flac", "text": "hold the line"}) + "\n")
    with served(judged, "--max-seconds", 20, "--max-upload-mb", 10) as found:
        yield found


@pytest.fixture(scope="module")
def seen(server: Served, driven: Driven, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the script saw."""
    files = tmp_path_factory.mktemp("files")
    clip = encode_wav(sound("low", 1, 1.2))
    (files / "clip.wav").write_bytes(clip)
    (files / "corrupt.wav").write_bytes(clip[:3000])
    with (files / "huge.wav").open("wb") as huge:
        huge.truncate(2 << 30)
    options = {name: str(files / f"{name}.wav") for name in ("clip", "corrupt", "huge")}
    return driven("page", server, **options)


def test_text(seen: dict) -> None:
    assert seen["text"].strip()


def test_speech(seen: dict) -> None:
    assert seen["speech"]["playable"]
    assert seen["speech"]["seconds"] > 0.2
    assert seen["speech"]["loudest"] > 0.01
    assert seen["tokens"].startswith("[")
    assert seen["plot"] > 500


def test_examples_and_doubts(seen: dict) -> None:
    assert "not shown to transcribe better than trivial answers" in seen["doubt"]


def test_refusals(seen: dict) -> None:
    assert "cannot be used" in seen["corrupt"]
    assert "exceed" in seen["huge"] or "larger than" in seen["huge"]
    assert "huge.wav" in seen["huge"] or "10 MB" in seen["huge"]
    assert seen["kept"], "what is refused is no turn"


def test_recording_and_labels(seen: dict) -> None:
    assert seen["transcript"]
    assert seen["label"] in ("one", "two")


def test_nothing_comes_from_elsewhere(seen: dict) -> None:
    assert seen["outside"] == []
    assert seen["errors"] == []


def test_the_server_ends(seen: dict, server: Served) -> None:
    """Also while the browser's connections may still be open, and without a traceback."""
    assert server.end() == 0
    assert "Traceback" not in "".join(server.lines)
