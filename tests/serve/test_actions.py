"""What the buttons of the page do, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from spiritlm_core import SpiritLM
from spiritlm_core.serve.actions import Actions
from spiritlm_core.serve.display import HIDDEN
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.guard import Kept
from spiritlm_core.serve.turns import Example, Turn
from tests.serve.limits import LIMITS

SAMPLING = (0.0, 1.0, 0, 0, 20)


@pytest.fixture
def actions(engine: Engine) -> Iterator[Actions]:
    kept = Kept(10_000_000)
    yield Actions(engine, LIMITS, kept)
    kept.close()


def test_voices_have_names_where_the_vocoder_has(actions: Actions) -> None:
    assert [value for _, value in actions.voices("speaking")["choices"]] == ["", "ann", "bo", "cy"]
    assert actions.voices("mute")["choices"] == [("default", "")]
    assert actions.voices("mute")["visible"] == HIDDEN
    actions.models["speaking"] = actions.models["speaking"].model_copy(update={"speaker_names": []})
    assert [value for _, value in actions.voices("speaking")["choices"]] == ["", 0, 1, 2]


@pytest.mark.parametrize(("speaker", "number"), [("", None), ("cy", 2), (1, 1), (None, None)])
def test_ask(actions: Actions, spirit: SpiritLM, speaker: str | int | None, number: int | None) -> None:
    turns, chat, text, *results = actions.ask([], "press one", "Free", "speech", "", [], "speaking", speaker, *SAMPLING)
    want = spirit.generate("press one", "speech", max_new_tokens=20)
    assert ([turn.who for turn in turns], text, len(chat)) == (["user", "assistant"], "", 2)
    assert turns[1].tokens == want.tokens
    heard, _ = soundfile.read(results[2]["value"], dtype="float32")
    assert abs(heard - want[0].waveform(number).clip(-1, 1)).max() < 1e-4
    assert results[4]["value"] == want.tokens
    assert results[6] is not None


def test_tasks(actions: Actions, clip: bytes, tmp_path: Path) -> None:
    import gradio as gr

    (tmp_path / "clip.wav").write_bytes(clip)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    turns = actions.add_audio([], str(tmp_path / "clip.wav"))[0]
    assert actions.add_audio(turns, str(tmp_path / "bad.wav"))[0] == turns, "what is refused is no turn"
    examples = actions.learn([], None, "press", "one")[0]
    assert examples == [Example(Turn("user", text="press"), "one")]
    given = ("any", "one, two", examples, "speaking", "", *SAMPLING)
    assert actions.ask(turns, "", "Transcribe", *given)[0] == turns
    assert actions.ask(turns, "", "Classify", *given)[3] in ("one", "two")
    assert actions.ask([], "one", "Say", "any", "", [], "mute", "", *SAMPLING)[6]["value"].startswith(
        "This model has no"
    )
    with pytest.raises(gr.Error, match="There is no recording"):
        actions.ask([], "x", "Transcribe", *given)
    assert actions.engine.depth == 0
