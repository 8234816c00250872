"""What the buttons of the page do, without a browser."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from fastapi.testclient import TestClient

from spiritlm_core import SpiritLM
from spiritlm_core.lm.generate.content import Answer
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import Verdict
from spiritlm_core.serve.actions import Actions
from spiritlm_core.serve.display import HIDDEN
from spiritlm_core.serve.engine import Engine
from spiritlm_core.serve.guard import Kept
from spiritlm_core.serve.routes import create_app
from spiritlm_core.serve.turns import Example, Turn
from tests.serve.limits import HOME, LIMITS

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
    turns, _, text, *locked = actions.begin([], "press one")
    answered, *results = actions.ask(turns, "Free", "speech", "", [], "speaking", speaker, *SAMPLING)
    turns, chat, left, *free = actions.end(turns, answered)
    want = spirit.generate("press one", "speech", max_new_tokens=20)
    assert ([turn.who for turn in turns], text, len(chat), left) == (["user", "assistant"], "", 2, None)
    assert [[one["interactive"] for one in buttons] for buttons in (locked, free)] == [[False] * 3, [True] * 3]
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
    assert actions.ask(turns, "Transcribe", *given)[0] is None, "a transcript is no turn"
    assert actions.ask(turns, "Classify", *given)[1] in ("one", "two")
    said = [Turn("user", text="one")]
    silent = actions.ask(said, "Say", "any", "", [], "mute", "", *SAMPLING)[4]
    assert silent["value"].startswith("This model has no")
    with pytest.raises(gr.Error, match="There is no recording"):
        actions.ask(said, "Transcribe", *given)
    assert actions.engine.depth == 0


def test_what_is_said_meanwhile_stays_and_the_answer_stands_before_it(actions: Actions) -> None:
    asked, meanwhile, answer = (Turn(who, text=who) for who in ("user", "user", "assistant"))
    assert actions.end([asked, meanwhile], (1, [answer]))[0] == [asked, answer, meanwhile]
    assert actions.end([], (1, [answer]))[0] == [], "what was cleared does not come back"
    assert actions.end([asked, meanwhile], None)[0] == [asked, meanwhile], "where there is no answer, nothing is lost"


@pytest.fixture
def judged(spirit: SpiritLM, clip: bytes, tmp_path: Path) -> Iterator[Actions]:
    """A model that was found to be no good at transcribing, good at saying, and that comes with a recording."""
    poor = Verdict.of("transcribe", "word error rate", Estimate(1.2, 1.1, 1.3), {"nothing": 1.0},
                      on="held-out recordings", items=9, better=False)  # fmt: skip
    own = copy.copy(spirit)
    own.verdicts = [poor, replace(poor, task="say", better=True), replace(poor, task="classify", labels=("a", "b"))]
    (tmp_path / "1.flac").write_bytes(clip)
    own.examples = [{"audio": str(tmp_path / "1.flac"), "text": "hold the line"}]
    engine, kept = Engine({"judged": own, "other": spirit}, LIMITS.queue), Kept(10_000_000)
    yield Actions(engine, LIMITS, kept)
    kept.close()
    engine.close()


def test_a_task_that_the_model_is_no_good_at_says_so(judged: Actions) -> None:
    said = {task: judged.doubt(task, "judged") for task in ("Free", "Transcribe", "Say", "Classify")}
    assert "not shown to transcribe better" in said["Transcribe"]["value"]
    assert [one["visible"] is True for one in said.values()] == [False, True, False, True]
    assert judged.doubt("Transcribe", "other")["visible"] == HIDDEN
    assert judged.shape("Transcribe", "judged")[0]["value"] == said["Transcribe"]["value"]
    _, labels, doubt, *examples = judged.shown("Transcribe", "judged")
    assert (labels["value"], doubt["value"]) == ("a, b", said["Transcribe"]["value"])
    assert examples[0]["value"] == "▶ hold the line"
    other = judged.shown("Transcribe", "other")
    assert (other[1]["value"], len(other), other[-1]["visible"]) == ("", 3 + len(examples), HIDDEN)


def test_an_example_becomes_a_turn_and_chooses_its_task(judged: Actions, clip: bytes) -> None:
    turns, chat, task = judged.try_example(0, [], "judged")
    assert (task, len(chat)) == ("Transcribe", 1)
    assert Path(turns[0].file).read_bytes() == clip
    assert judged.kept.folder in Path(turns[0].file).parents, "a copy of its own, which the page may show"
    turns, _, task = judged.try_example(1, turns, "judged")
    assert (task, turns[1].text) == ("Say", judged.examples("judged")[1]["text"])


def test_an_empty_answer_says_why_and_is_no_answer(actions: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpiritLM, "generate_batch", lambda *_, **__: [Answer((), (1,), (), "stop")])
    said = [Turn("user", text="press one")]
    (_, turns), *results = actions.ask(said, "Free", "text", "", [], "speaking", "", *SAMPLING)
    assert turns == []
    assert results[0] == ""
    assert "turned to the other modality at once; try another seed" in results[3]["value"]
    assert results[3]["visible"] is True


def test_the_description_of_the_interface_says_what_a_model_is_no_good_at(judged: Actions) -> None:
    with TestClient(create_app(judged.engine, LIMITS), HOME) as client:
        routes = client.get("/openapi.json").json()["paths"]
        assert "**judged**: This model is not shown to transcribe" in routes["/v1/transcribe"]["post"]["description"]
        assert "Write down what is said" in routes["/v1/transcribe"]["post"]["description"]
        assert "not shown" not in routes["/v1/say"]["post"]["description"]
        judged_, other = client.get("/v1/model").json()["models"]
    assert set(judged_["doubts"]) == {"transcribe", "classify"}
    assert other["doubts"] == {}
