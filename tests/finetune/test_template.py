"""Templates: those of the package, what a wrong one is told, and filling them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.recipes import FINETUNE, find_finetune_recipe, recipe_names
from spiritlm_core.errors import RecipeError, Rejection
from spiritlm_core.finetune.stage import encode, fill, load_layout
from spiritlm_core.finetune.template import Template, find_template, first_kind, template_names

TASKS = ["asr", "classification", "instruction", "speech-to-speech", "tts"]


def test_the_package_has_templates_and_a_recipe_for_each() -> None:
    assert template_names() == TASKS
    assert recipe_names(FINETUNE) == TASKS
    for name in TASKS:
        assert find_finetune_recipe(name).template == find_template(name).name == name
        assert find_template(name).description


def test_fields_and_the_modality_of_answers() -> None:
    assert find_template("asr").fields == {"audio": ("speech", True), "text": ("text", True)}
    assert [first_kind(find_template(name).answer) for name in TASKS] == ["text", "text", None, "speech", "speech"]


def test_an_example_is_what_the_model_was_taught(published: Path) -> None:
    layout = load_layout(published)
    vocabulary = layout.vocabulary
    asr = find_template("asr")
    example = fill(asr.question, asr.answer, {"text": "press one"}, {"audio": "[St1][Hu7]"})
    prompt, answer = encode(layout, example, first_kind(asr.answer))
    speech = [vocabulary.unit_id("St", 1), vocabulary.unit_id("Hu", 7)]
    assert prompt == [vocabulary.speech_marker, *speech, vocabulary.text_marker]
    assert layout.text(answer[:-1]) == " press one"
    assert answer[-1] == vocabulary.eos
    tts = find_template("tts")
    asked, said = encode(
        layout, fill(tts.question, tts.answer, {"text": "press one"}, {"audio": "[St1][Hu7]"}), "speech"
    )
    assert asked == [vocabulary.text_marker, *answer[:-1], vocabulary.speech_marker]
    assert said == [*speech, vocabulary.eos]


def test_an_answer_of_either_modality_brings_its_marker(published: Path) -> None:
    layout, template = load_layout(published), find_template("instruction")
    texts = {"instruction": "say it"}
    spoken = fill(template.question, template.answer, texts, {"answer_audio": "[Hu7]"})
    written = fill(template.question, template.answer, {**texts, "answer": "it"}, {})
    assert spoken.question == written.question == (("text", "Instruction: say it Answer:"),)
    (asked, said), (again, answer) = (
        encode(layout, example, first_kind(template.answer)) for example in (spoken, written)
    )
    assert asked == again
    assert said[0] == layout.vocabulary.speech_marker
    assert layout.text(answer[:-1]) == " it"


@pytest.mark.parametrize("answer", ["say [Speech] now", "[Hu12]", "[Text]"])
def test_an_answer_that_reads_like_a_token_is_text(published: Path, answer: str) -> None:
    layout, asr = load_layout(published), find_template("asr")
    example = fill(asr.question, asr.answer, {"text": answer}, {"audio": "[Hu7]"})
    _, said = encode(layout, example, first_kind(asr.answer))
    assert layout.text(said[:-1]) == f" {answer}"
    assert max(said) < layout.vocabulary.text_size


def test_what_is_missing_is_told() -> None:
    template = find_template("instruction")
    with pytest.raises(Rejection, match="nothing in instruction"):
        fill(template.question, template.answer, {"answer": "x"}, {})
    with pytest.raises(Rejection, match="no answer"):
        fill(template.question, template.answer, {"instruction": "x"}, {})


SPEECH, TEXT = {"speech": "audio"}, {"text": "{text}"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": [{"speech": "audio", "text": "x"}]}, "either `text` or `speech`"),
        ({"question": [{"text": "{a.b}"}]}, "is not {field}"),
        ({"question": [{"text": "{text"}]}, "expected '}'"),
        ({"question": [TEXT]}, "where the question ends and the answer begins, both are text"),
        ({"question": [SPEECH], "answer": [{"speech": "reply"}], "metric": "none"}, "both are speech"),
        ({"question": [{"text": "{text} A:"}]}, "where an answer ends and the next question begins"),
        ({"question": [{**SPEECH, "optional": True}]}, "at least one part must not be optional"),
        ({"question": [SPEECH, {"text": "{audio} A:"}]}, "'audio' is text in one part and speech in another"),
        ({"question": [TEXT], "answer": [SPEECH]}, "metric wer judges answers in text alone"),
        ({"labels": ["a", "b"]}, "labels are for metric accuracy"),
        ({"metric": "accuracy", "labels": ["a", "a"]}, "a label is given twice"),
    ],
)
def test_a_wrong_template_is_refused(changes: dict[str, Any], message: str) -> None:
    good = {"name": "x", "question": [SPEECH], "answer": [TEXT], "metric": "wer"}
    assert Template.model_validate(good)
    with pytest.raises(ValidationError) as found:
        Template.model_validate({**good, **changes})
    assert message in str(found.value)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nquestion:\n  - speeech: audio\nanswer:\n  - text: '{text}'\n")
    with pytest.raises(RecipeError, match=r"mine.yaml, line 3: question.0.speeech: unknown key: speech may be meant"):
        find_template(str(path))
    with pytest.raises(RecipeError, match="there is no template 'asrr'; there are asr, classification"):
        find_template("asrr")
    with pytest.raises(RecipeError, match="there is no template file nowhere.yaml"):
        find_template("nowhere.yaml")


def test_a_recipe_must_fit_together() -> None:
    with pytest.raises(RecipeError, match="tokens_per_step 1000 is not a multiple of tokens.context_length 1024"):
        find_finetune_recipe("asr", ["lm.tokens_per_step=1000"])
    with pytest.raises(RecipeError, match="name the model in `base`"):
        find_finetune_recipe("asr", ["lm.base=hf://a/b"])
    with pytest.raises(RecipeError, match="there is no fine-tuning recipe 'quickstart'"):
        find_finetune_recipe("quickstart")
