"""What the page makes of a conversation, and the picture of units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.lm.generate.presets import ask
from spiritlm_core.serve.display import figure, panel
from spiritlm_core.serve.errors import RequestError
from spiritlm_core.serve.service import RequestHandler
from spiritlm_core.serve.turns import (
    Example,
    Settings,
    Turn,
    check_recording,
    classification,
    files_of,
    free,
    saying,
    transcription,
)
from tests.serve.limits import LIMITS

SETTINGS = Settings("speaking", {"max_new_tokens": 8, "temperature": 0, "top_p": 1, "top_k": 0, "seed": 0})


@pytest.fixture
def recording(tmp_path: Path, clip: bytes) -> Turn:
    (tmp_path / "clip.wav").write_bytes(clip)
    return Turn("user", file=str(tmp_path / "clip.wav"))


def test_requests_are_what_the_model_takes(spirit: SpiritLM, recording: Turn) -> None:
    text, spoken = Turn("user", text="press one"), Turn("assistant", tokens="[Hu1][Hu2]", file="heard.wav")
    turns, examples = [text, recording, spoken], [Example(recording, "two")]
    handler, *others = (RequestHandler(spirit, LIMITS, files_of(turns, examples)) for _ in range(4))
    reply = handler.generate(free(turns, "any", SETTINGS))
    want = spirit.generate(["press one", Path(str(recording.file)), ("speech", "[Hu1][Hu2]")], max_new_tokens=8)
    assert reply.answer == want
    assert len(handler.recordings) == 1, "of an answer its tokens are shown, not its sound"
    given = Path(str(recording.file))
    written = others[0].transcribe(transcription([recording, text], examples, SETTINGS))
    shots = [(given, "two")]
    assert [written] == ask(spirit, "asr", [given], shots=shots, max_new_tokens=8)
    said = others[1].say(saying([text, recording], examples, SETTINGS))
    swapped = [("two", given)]
    assert said.answer == spirit.generate("press one", "speech", shots=swapped, max_new_tokens=8, stop=("[Text]",))
    found = classification([recording], [*examples, Example(text, "one")], "two, three", SETTINGS)
    assert found.labels == ["two", "three", "one"]
    assert others[2].classify(found).label in found.labels


def test_what_is_missing_is_said(recording: Turn, tmp_path: Path) -> None:
    text = Turn("user", text="x")
    for make, message in (
        (lambda: free([], "any", SETTINGS), "nothing to answer"),
        (lambda: transcription([text], [], SETTINGS), "no recording"),
        (lambda: saying([recording], [], SETTINGS), "no text"),
        (lambda: classification([text], [], "one", SETTINGS), "two labels"),
        (lambda: files_of([Turn("user", file=str(tmp_path / "gone"))]), "no longer kept"),
    ):
        with pytest.raises(RequestError, match=message):
            make()


def test_recordings_are_checked(recording: Turn, tmp_path: Path) -> None:
    check_recording(str(recording.file), LIMITS)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with (tmp_path / "huge.wav").open("wb") as huge:
        huge.truncate(2 << 30)
    for name, message in (("bad.wav", "cannot be used"), ("huge.wav", "larger than 0.5 MB")):
        with pytest.raises(RequestError, match=message):
            check_recording(str(tmp_path / name), LIMITS)


def test_units_share_the_waveform() -> None:
    waveform = np.sin(np.arange(16_000) / 9).astype(np.float32)
    one = panel("prompt", waveform, np.array([3, 3, 5, 7]))
    assert (one.units.tolist(), one.ends.tolist()) == ([3, 5, 7], [0.5, 0.75, 1.0])
    two = panel("answer", waveform, np.array([3, 5]), np.array([1, 3]))
    assert two.ends.tolist() == [0.25, 1.0]
    for shown in ([one, two], [panel("empty", waveform[:0], np.zeros(0, np.int64))], []):
        drawn = figure(shown)
        drawn.canvas.draw()
        assert [axes.get_title(loc="left").partition(":")[0] for axes in drawn.axes][: len(shown)] == [
            p.title for p in shown
        ]
    numbers = [text.get_text() for text in figure([one]).axes[0].texts]
    assert numbers == ["3", "5", "7"]
