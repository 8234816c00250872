from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spiritlm_core.evaluate.clips import rows_of
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated, count, pick
from spiritlm_core.evaluate.heldout.fewshot import TASKS, Task, ask, questions
from spiritlm_core.evaluate.heldout.findings import interleaved_sample, lines, task_samples
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate import fewshot
from spiritlm_core.lm.generate.fewshot import Asked
from tests.evaluate.corpora import Corpus
from tests.evaluate.suite.knowing import knowing

CONFIG = EvaluateConfig(shots=2, fewshot_utterances=6, max_new_tokens=32)


def oracle(evaluated: Evaluated, corpus: Corpus, task: str) -> Evaluated:
    """Knows the answers: the target's own tokens behind the prompt."""
    known = []
    for prompt, target in zip(prompts(evaluated, corpus, task), asked_of(corpus), strict=True):
        answer = target.text_ids if task == "speech_to_text" else target.speech_ids
        known.append([*prompt.prompt, *answer.tolist()])
    return replace(evaluated, spirit=knowing(evaluated.spirit, known))


def asked_of(corpus: Corpus) -> list:
    return questions(corpus.tables["sequences"], CONFIG, 256)[0]


def prompts(evaluated: Evaluated, corpus: Corpus, task: str, config: EvaluateConfig = CONFIG) -> list[Asked]:
    """What the model is given."""
    laid_out: list[Asked] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fewshot.FewShot, "answers", lambda _, asked: laid_out.extend(asked) or [""] * len(asked))
        run(evaluated, corpus, task, config)
    return laid_out


def run(evaluated: Evaluated, corpus: Corpus, task: str, config: EvaluateConfig = CONFIG) -> Task:
    asked, pool = questions(corpus.tables["sequences"], config, evaluated.context_length)
    return ask(task, asked, pool, evaluated, config, count(corpus.tables["sequences"], "held_out"), config.shots)


@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_makes_no_errors_and_trivial_answers_do(evaluated: Evaluated, corpus: Corpus, task: str) -> None:
    found = run(oracle(evaluated, corpus, task), corpus, task)
    rates = {who: errors.rate for who, errors in found.rates.items()}
    assert rates["model"] == 0
    assert rates["nothing"] == 1
    assert min(rates["shuffled"], rates["random"]) > 0.3
    assert ("fixed" in rates) == (task == "speech_to_text")
    assert found.figures(100, 0)["beats_trivial"] is True
    assert [answer.startswith("[") for answer in found.answers] == [task == "text_to_speech"] * 6


@pytest.mark.parametrize("task", TASKS)
def test_a_random_model_makes_errors_and_the_same_ones_again(evaluated: Evaluated, corpus: Corpus, task: str) -> None:
    found = run(evaluated, corpus, task)
    assert found.rates["model"].rate > 0.5
    assert found.figures(100, 0)["beats_trivial"] is False
    again = run(evaluated, corpus, task)
    assert (found.answers, found.rates) == (again.answers, again.rates)


def test_shots_come_from_train_and_never_give_the_answer_away(evaluated: Evaluated, corpus: Corpus) -> None:
    splits = {row["utterance_id"]: row["split"] for row in corpus.tables["sequences"].read().to_pylist()}
    asked, pool = questions(corpus.tables["sequences"], CONFIG, evaluated.context_length)
    assert len(asked) == 6
    assert {splits[utterance.key] for utterance in pool} == {"train"}
    assert {splits[utterance.key] for utterance in asked} == {"held_out"}
    known = {evaluated.text(utterance.text_ids) for utterance in pool}
    for target, prompt in zip(asked, prompts(evaluated, corpus, "speech_to_text"), strict=True):
        assert prompt.shots == CONFIG.shots
        shown = [
            part.partition("[Speech]")[0].strip() for part in evaluated.render(prompt.prompt).split("[Text]")[1:-1]
        ]
        assert len(shown) == CONFIG.shots
        assert set(shown) <= known - {evaluated.text(target.text_ids)}


@pytest.mark.parametrize("synthetic", [0.0, 0.5, 1.0])
def test_solved_examples_are_what_people_said_if_they_said_anything(corpus: Corpus, synthetic: float) -> None:
    rows = corpus.tables["sequences"].read()
    origins = ["synthetic" if place < synthetic * len(rows) else "recorded" for place in range(len(rows))]
    marked = rows.set_column(rows.schema.get_field_index("origin"), "origin", [origins])
    pool = questions(TableView.of(marked), CONFIG, 256)[1]
    of = dict(zip(rows["utterance_id"].to_pylist(), origins, strict=True))
    assert {of[one.key] for one in pool} == ({"recorded"} if synthetic < 1 else {"synthetic"})
    every = questions(corpus.tables["sequences"], CONFIG, 256)[1]
    assert [one.key for one in pool] == [one.key for one in every if synthetic in (0, 1) or of[one.key] == "recorded"]


@pytest.mark.parametrize("context", [60, 90, 120, 200])
def test_prompts_leave_room_for_the_answer(evaluated: Evaluated, corpus: Corpus, context: int) -> None:
    short = replace(evaluated, context_length=context)
    lengths = [len(one.prompt) for task in TASKS for one in prompts(short, corpus, task, replace_shots(8))]
    assert lengths
    assert max(lengths) + CONFIG.max_new_tokens <= context


def replace_shots(shots: int) -> EvaluateConfig:
    return CONFIG.model_copy(update={"shots": shots})


def test_a_prompt_is_what_the_paper_shows(evaluated: Evaluated, corpus: Corpus) -> None:
    """Solved examples, then the question, as their tokens are in the table; the same the other way round."""
    first = asked_of(corpus)[0]
    rows = {row["utterance_id"]: row for row in corpus.tables["sequences"].read().to_pylist()}
    text, speech = ([rows[first.key][name]] for name in ("text_ids", "speech_ids"))
    v = evaluated.vocabulary
    for task, question, answer in (("speech_to_text", speech, text), ("text_to_speech", text, speech)):
        prompt = prompts(evaluated, corpus, task, replace_shots(1))[0].prompt
        markers = (v.speech_marker, v.text_marker) if task == "speech_to_text" else (v.text_marker, v.speech_marker)
        assert prompt[-len(question[0]) - 2 :] == (markers[0], *question[0], markers[1])
        solved = list(prompt[: -len(question[0]) - 2])
        names = ("speech_ids", "text_ids") if task == "speech_to_text" else ("text_ids", "speech_ids")
        bos = [] if v.bos is None else [v.bos]
        train = [row for row in rows.values() if row["split"] == "train" and row["text_ids"]]
        assert solved in [[*bos, markers[0], *row[names[0]], markers[1], *row[names[1]]] for row in train]
        assert answer[0] != solved[-len(answer[0]) :]


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
    one, two = (ask("speech_to_text", asked[:n], pool, evaluated, CONFIG, 1, CONFIG.shots) for n in (1, 2))
    assert "shuffled" not in one.rates
    assert "shuffled" in two.rates
