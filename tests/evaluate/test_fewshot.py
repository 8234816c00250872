from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated
from spiritlm_core.evaluate.heldout.corpus import count, pick, rows_of
from spiritlm_core.evaluate.heldout.fewshot import TASKS, Task, ask, hubert_units, prompt, questions
from spiritlm_core.evaluate.heldout.samples import interleaved_sample, lines, render, task_samples
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.distances import normalise
from tests.evaluate.conftest import Corpus

CONFIG = EvaluateConfig(shots=2, fewshot_utterances=6, max_new_tokens=32)


class Oracle(Evaluated):
    """Knows the answers: the target's own tokens, found by the end of the prompt."""

    known: dict[tuple[int, ...], list[int]]

    def answer(self, prompts: Sequence[Sequence[int]], modality: str, most: int) -> list[list[int]]:
        return [self.known[tuple(ids)][:most] for ids in prompts]


def oracle(evaluated: Evaluated, corpus: Corpus, task: str) -> Oracle:
    asked, _ = questions(corpus.tables["sequences"], CONFIG, evaluated.context_length)
    made = Oracle(**{name: getattr(evaluated, name) for name in Evaluated.__dataclass_fields__})
    known = {}
    for question in asked:
        target = question.target
        answer = target.text_ids if task == "speech_to_text" else target.speech_ids
        known[tuple(prompt(question, task, evaluated.vocabulary))] = answer.tolist()
    object.__setattr__(made, "known", known)
    return made


def run(evaluated: Evaluated, corpus: Corpus, task: str) -> Task:
    asked, pool = questions(corpus.tables["sequences"], CONFIG, evaluated.context_length)
    return ask(task, asked, pool, evaluated, CONFIG, held_out=count(corpus.tables["sequences"], "held_out"))


@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_makes_no_errors_and_trivial_answers_do(evaluated: Evaluated, corpus: Corpus, task: str) -> None:
    rates = {who: errors.rate for who, errors in run(oracle(evaluated, corpus, task), corpus, task).rates.items()}
    assert rates["model"] == 0
    assert rates["nothing"] == 1
    assert min(rates["shuffled"], rates["random"]) > 0.3
    assert ("fixed" in rates) == (task == "speech_to_text")
    assert run(oracle(evaluated, corpus, task), corpus, task).figures(100, 0)["beats_trivial"] is True


@pytest.mark.parametrize("task", TASKS)
def test_a_random_model_makes_errors_and_answers_in_the_modality_asked_for(
    evaluated: Evaluated, corpus: Corpus, task: str
) -> None:
    found = run(evaluated, corpus, task)
    assert found.rates["model"].rate > 0.5
    assert found.figures(100, 0)["beats_trivial"] is False
    speech = [bool(flag) for answer in found.answers for flag in evaluated.vocabulary.is_speech(np.array(answer, int))]
    assert set(speech) <= {task == "text_to_speech"}
    again = run(evaluated, corpus, task)
    assert (found.answers, found.rates) == (again.answers, again.rates)


def test_shots_come_from_train_and_never_give_the_answer_away(evaluated: Evaluated, corpus: Corpus) -> None:
    splits = {row["utterance_id"]: row["split"] for row in corpus.tables["sequences"].read().to_pylist()}
    asked, pool = questions(corpus.tables["sequences"], CONFIG, evaluated.context_length)
    assert len(asked) == 6
    assert {splits[utterance.key] for utterance in pool} == {"train"}
    for question in asked:
        assert splits[question.target.key] == "held_out"
        assert len(question.shots) == len({shot.key for shot in question.shots}) == CONFIG.shots
        assert all(splits[shot.key] == "train" for shot in question.shots)
        assert normalise(question.target.text) not in [normalise(shot.text) for shot in question.shots]


@pytest.mark.parametrize("context", [60, 90, 120, 200])
def test_prompts_leave_room_for_the_answer(evaluated: Evaluated, corpus: Corpus, context: int) -> None:
    asked, _ = questions(corpus.tables["sequences"], replace_shots(8), context)
    lengths = [len(prompt(question, task, evaluated.vocabulary)) for question in asked for task in TASKS]
    assert lengths
    assert max(lengths) + CONFIG.max_new_tokens <= context


def replace_shots(shots: int) -> EvaluateConfig:
    return CONFIG.model_copy(update={"shots": shots})


def test_a_prompt_is_what_the_paper_shows(evaluated: Evaluated, corpus: Corpus) -> None:
    (question, *_), _ = questions(corpus.tables["sequences"], replace_shots(1), 256)
    text = render(prompt(question, "speech_to_text", evaluated.vocabulary), evaluated)
    assert text.startswith(" [Speech] [Pi")
    assert text.endswith("] [Text] ")
    assert text.count("[Speech]") == text.count("[Text]") == 2
    assert f"[Text]  {question.shots[0].text} [Speech]" in text


def test_the_order_of_shards_does_not_matter(corpus: Corpus) -> None:
    view = corpus.tables["sequences"]
    backwards = TableView(tuple(reversed(view.loaders)), view.rows)
    for split in ("train", "held_out"):
        keys = [[utterance.key for utterance in pick(v, split, 5, 3)] for v in (view, backwards)]
        assert keys[0] == keys[1]
        assert keys[0] != [utterance.key for utterance in pick(view, split, 5, 4)]


def test_rows_are_found_by_key_in_any_shard(corpus: Corpus) -> None:
    found = rows_of(corpus.tables["audio"], {"u001", "u047", "nobody"}, ["audio", "text"])
    assert set(found) == {"u001", "u047"}
    assert set(found["u001"]) == {"audio", "text"}


def test_counting_agrees_with_picking(corpus: Corpus) -> None:
    view = corpus.tables["sequences"]
    assert count(view, "held_out") == len(pick(view, "held_out", 1000, 0)) == 12


def test_hubert_units_of_mixed_tokens_are_collapsed(evaluated: Evaluated) -> None:
    v = evaluated.vocabulary
    ids = [v.style_id(1), v.hubert_id(3), v.pitch_id(2), v.hubert_id(3), v.text_marker, v.hubert_id(4), 5]
    assert hubert_units(ids, v) == [3, 4]


def test_samples_show_prompt_answer_and_reference(evaluated: Evaluated, corpus: Corpus) -> None:
    (sample,) = task_samples(run(oracle(evaluated, corpus, "speech_to_text"), corpus, "speech_to_text"), 1, evaluated)
    assert sample.output == sample.reference == sample.text
    assert sample.prompt.startswith("[Pi")
    assert sample.error_rate == 0
    assert "speech → text (2 shots)" in lines([sample.to_dict()])[0]


def test_an_interleaved_sample_goes_on_at_a_change_of_modality(evaluated: Evaluated, corpus: Corpus) -> None:
    v = evaluated.vocabulary
    one, two = pick(corpus.tables["sequences"], "held_out", 2, 0)
    ids = np.array([v.text_marker, *one.text_ids, v.speech_marker, *two.speech_ids])
    sample = interleaved_sample("r1", ids, evaluated, 20)
    assert sample.prompt == f"[Text]  {one.text}"
    assert sample.reference.startswith("[Speech] [Pi")


def test_terminal_lines_are_short_and_carry_no_control_codes() -> None:
    sample = {"title": "t", "kind": "speech_to_text", "shots": 0, "prompt": "[Hu1]" * 99, "output": "\x1b[31mred\n\x07",
              "reference": "", "error_rate": None}  # fmt: skip
    shown = lines([sample], width=60)
    assert max(map(len, shown)) <= 60 + 12
    assert "\x1b" not in "".join(shown)
    assert "(nothing)" in shown[-1]


def test_nothing_is_asked_where_nothing_fits(corpus: Corpus) -> None:
    assert questions(corpus.tables["sequences"], replace_shots(0), 40)[0] == []
    assert questions(corpus.tables["sequences"], CONFIG.model_copy(update={"fewshot_utterances": 0}), 256)[0] == []


def test_one_question_has_no_other_answer_to_compare_with(evaluated: Evaluated, corpus: Corpus) -> None:
    asked, pool = questions(corpus.tables["sequences"], CONFIG, 256)
    assert "shuffled" not in ask("speech_to_text", asked[:1], pool, evaluated, CONFIG, 1).rates
    assert replace(asked[0], shots=()).shots == ()
