"""A recording heard several times, later each time, of whose answers the likeliest is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.content import Answer, Content, Prompt, Speech, Text
from spiritlm_core.lm.generate.fewshot import predict
from spiritlm_core.lm.generate.presets import ask, encoded
from spiritlm_core.speech.grid import FRAME, SHORTEST
from tests.support.small_model import LABELS, sound

CLIPS = [sound(label, seed, 0.6 + 0.1 * seed) for label in LABELS for seed in range(3)]
ASKED = {"max_new_tokens": 12, "stop": ("[Speech]",), "transcribes": True}


@pytest.fixture(scope="module")
def spirit(base: Path) -> SpiritLM:
    return SpiritLM.from_pretrained(base, "cpu")


def likelihood(spirit: SpiritLM, answer: Answer) -> float:
    """Mean over the tokens of the answer and its end, computed token by token over the whole sequence."""
    end = {"eos": [spirit.vocabulary.eos], "stop": [spirit.vocabulary.speech_marker], "length": []}[answer.finish]
    (told,) = predict(spirit.model, [[*answer.prompt_ids, *answer.ids, *end]])
    return -float(told.nats[len(answer.prompt_ids) - 1 :].mean())


def heard(spirit: SpiritLM, clip: np.ndarray, times: int, **options: object) -> list[Answer]:
    return [spirit.generate(clip[FRAME * n // times :], "text", **ASKED, **options) for n in range(times)]


def test_heard_once_is_the_answer_of_the_recording_as_it_is(spirit: SpiritLM) -> None:
    assert ask(spirit, "asr", CLIPS, hearings=1, max_new_tokens=12) == [heard(spirit, clip, 1)[0] for clip in CLIPS]


@pytest.mark.parametrize("times", [2, 4])
def test_of_several_hearings_the_likeliest_answer_is_given(spirit: SpiritLM, times: int) -> None:
    found = ask(spirit, "asr", CLIPS, hearings=times, max_new_tokens=12)
    several = [heard(spirit, clip, times) for clip in CLIPS]
    for answer, answers in zip(found, several, strict=True):
        assert answer in answers
        best = max(likelihood(spirit, one) for one in answers)
        assert likelihood(spirit, answer) == pytest.approx(best, abs=1e-4)
    assert found != [answers[0] for answers in several], "another hearing was better somewhere"


def test_four_hearings_are_usual_and_neither_chance_nor_company_changes_them(spirit: SpiritLM) -> None:
    found = ask(spirit, "asr", CLIPS, max_new_tokens=12)
    assert ask(spirit, "asr", CLIPS, hearings=4, max_new_tokens=12) == found
    assert ask(spirit, "asr", CLIPS[::-1], batch_size=3, max_new_tokens=12)[::-1] == found
    assert [ask(spirit, "asr", [clip], max_new_tokens=12)[0] for clip in CLIPS] == found


def test_silence_keeps_its_place_between_recordings(spirit: SpiritLM) -> None:
    first, silent, last = ask(spirit, "asr", [CLIPS[0], np.zeros(9600, np.float32), CLIPS[1]], max_new_tokens=12)
    assert [first, last] == ask(spirit, "asr", CLIPS[:2], max_new_tokens=12)
    assert (silent.text, silent.finish) == ("", "silence")


def test_solved_examples_stand_in_front_of_every_hearing(spirit: SpiritLM) -> None:
    shots = [(CLIPS[0][:8000], "one")]
    (answer,) = ask(spirit, "asr", CLIPS[3:4], shots=shots, max_new_tokens=12)
    assert answer in heard(spirit, CLIPS[3], 4, shots=shots)


def test_what_is_too_short_or_has_no_recording_is_heard_once(spirit: SpiritLM) -> None:
    short = CLIPS[0][:SHORTEST]
    tokens = Speech(tokens="[Hu1][Hu5][Hu3]")
    found = ask(spirit, "asr", [short, tokens], max_new_tokens=12)
    assert found == spirit.generate_batch([short, tokens], "text", **ASKED)


def test_a_whole_prompt_is_used_as_it_is_beside_recordings(spirit: SpiritLM) -> None:
    whole = Prompt("[Speech][Hu1][Hu5][Hu3][Text]")
    assert ask(spirit, "asr", [whole, CLIPS[0]], max_new_tokens=12) == [
        spirit.generate_batch([whole], "text", **ASKED)[0],
        *ask(spirit, "asr", CLIPS[:1], max_new_tokens=12),
    ]


def test_text_beside_a_recording_stays_and_nothing_to_hear_takes_nothing(spirit: SpiritLM) -> None:
    (answer,) = ask(spirit, "asr", [[Text("one"), CLIPS[3]]], max_new_tokens=12)
    later = [[Text("one"), CLIPS[3][FRAME * n // 4 :]] for n in range(4)]
    assert answer in [spirit.generate(one, "text", **ASKED) for one in later]
    assert ask(spirit, "asr", [], max_new_tokens=12) == []
    assert [one.finish for one in ask(spirit, "asr", [np.zeros(9600, np.float32)])] == ["silence"]


def test_hearings_longer_than_the_context_are_left_out(spirit: SpiritLM) -> None:
    (part,) = encoded(spirit, CLIPS[0])
    assert isinstance(part, Speech)
    question: list[Content] = [replace(part, recording=sound("high", 1, 9))]  # its later hearings would be nine seconds
    assert ask(spirit, "asr", [question], max_new_tokens=12) == ask(
        spirit, "asr", CLIPS[:1], hearings=1, max_new_tokens=12
    )
    with pytest.raises(SpiritLMError, match="context is 128"):
        ask(spirit, "asr", [sound("high", 1, 9)])


@pytest.mark.parametrize("times", [0, 5])
def test_a_wrong_number_of_hearings_is_named(spirit: SpiritLM, times: int) -> None:
    with pytest.raises(SpiritLMError, match=f"hearings: .* 1 to 4 times, not {times}"):
        ask(spirit, "asr", CLIPS[:1], hearings=times)
