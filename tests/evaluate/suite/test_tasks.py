"""Tasks beyond pairs: a model of random weights is at chance, and one that sees the answer is always right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.evaluate.suite import harness
from spiritlm_core.evaluate.suite.labels import LabelTask, NamedTask, macro_f1, questions
from spiritlm_core.evaluate.suite.layouts import read_choices, read_labelled
from spiritlm_core.evaluate.suite.pairs import Side
from spiritlm_core.evaluate.suite.stage import page, run_suite, table
from spiritlm_core.evaluate.suite.styles import StyleTask, given_speech_judge, given_text_judge
from spiritlm_core.evaluate.suite.task import Bench, Recordings
from spiritlm_core.evaluate.suite.transcripts import TranscriptTask, Utterance
from spiritlm_core.lm.generate.fewshot import judged, log_likelihoods
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from tests.evaluate.corpora import WORD_LIST
from tests.evaluate.suite.knowing import Heard, knowing
from tests.evaluate.suite.stories import units, words

CONFIG = SuiteConfig(shots=3, max_new_tokens=24, bootstrap_samples=500)
LABELS = ("one", "two", "three")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def bench(spirit: SpiritLM, heard: Recordings | None = None) -> Bench:
    return Bench(spirit, heard or Recordings(), CONFIG)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelTask:
    """Nothing tells the labels apart."""
    rng = np.random.default_rng(3)
    rows = [{"label": LABELS[n % 3], "text": words(rng, 4), "audio": units(rng, 8)} for n in range(75)]
    folder = tmp_path_factory.mktemp("labels")
    write(folder / "train.jsonl", rows[:15])
    (task,) = read_labelled("labels", write(folder / "test.jsonl", rows[15:]))
    assert isinstance(task, LabelTask)
    return task


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> StyleTask:
    """Two styles that a small classifier tells apart; a prompt says nothing that its continuation could not."""
    rng = np.random.default_rng(4)
    rows = []
    for n in range(160):
        style = n % 2
        tokens = f"[St{style}][Pi{5 * style}]" + "".join(
            f"[Hu{unit}]" for unit in rng.integers(12 * style, 12 * style + 12, 8)
        )
        text = " ".join(rng.choice(WORD_LIST[5 * style : 5 * style + 5], 4))
        rows.append(
            {"label": ("low", "high")[style], "split": ("train", "test")[n % 4 // 2], "text": text, "audio": tokens}
        )
    (task,) = read_labelled("styles", write(tmp_path_factory.mktemp("styles") / "prompts.jsonl", rows))
    assert isinstance(task, StyleTask)
    return task


def transcribed(folder: Path) -> tuple[TranscriptTask, Heard]:
    rng = np.random.default_rng(6)
    rows = [Utterance(f"u{n}", words(rng, 5), folder / f"{n}.flac") for n in range(30)]
    return TranscriptTask("asr", "LibriSpeech", folder, tuple(rows)), Heard({u.audio: units(rng, 9) for u in rows})


def test_a_random_model_finds_labels_at_chance(spirit: SpiritLM, labelled: LabelTask) -> None:
    report = run_suite({"random": lambda: spirit}, [labelled], CONFIG)
    assert [m["direction"] for m in report["measures"]] == ["T, 0 shots", "T, 3 shots", "S, 0 shots", "S, 3 shots"]
    for measure in report["measures"]:
        assert measure["items"] == 60
        assert measure["mean_shots"] == (3 if "3" in measure["direction"] else 0)
        assert [one["metric"] for one in measure["figures"]] == ["accuracy, sum", "accuracy, mean", "macro-F1, sum"]
        for one in measure["figures"][:2]:
            assert (one["chance"], one["trivial"]) == (1 / 3, 1 / 3)
            assert one["value_low"] <= 1 / 3 <= one["value_high"], measure["direction"]


def test_a_model_that_sees_the_label_is_always_right(spirit: SpiritLM, labelled: LabelTask) -> None:
    known = []
    for kind in ("text", "speech"):
        for shots in (0, 3):
            asked, skipped = questions(labelled, bench(spirit), kind, shots)
            assert not skipped
            for row, question in asked.items():
                right = question.options[labelled.labels.index(row.label)]
                known.append([*right.prompt, *right.answer])
    rigged = knowing(spirit, known)
    measures = run_suite({"rigged": lambda: rigged}, [labelled], CONFIG)["measures"]
    assert len(measures) == 4
    assert {one["value"] for measure in measures for one in measure["figures"]} == {1.0}


def test_solved_examples_come_from_train_and_every_label_has_its_turn(spirit: SpiritLM, labelled: LabelTask) -> None:
    asked, _ = questions(labelled, bench(spirit), "text", 3)
    shown = [spirit.layout.text(question.options[0].prompt) for question in asked.values()]
    for prompt in shown:
        for label in LABELS:
            assert f"Label: {label} Text:" in prompt
        known = [row.side.text for row in labelled.train]
        assert all(part.partition(" Label:")[0].strip() in known for part in prompt.split("Text:")[1:-1])
    again, _ = questions(labelled, bench(spirit), "text", 3)
    assert again == asked
    assert len(set(shown)) == len(shown)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score

    right, found = (np.array(side) for side in zip(*pairs, strict=True))
    estimate = macro_f1(right, found, 4, [""] * len(right), samples=100, seed=0)
    assert estimate.value == pytest.approx(f1_score(right, found, average="macro", labels=range(4), zero_division=0))
    assert 0 <= estimate.low <= estimate.high <= 1


def test_a_random_model_recognises_and_speaks_no_better_than_a_trivial_answer(spirit: SpiritLM, tmp_path: Path) -> None:
    task, heard = transcribed(tmp_path)
    asr, tts = task.drawn(12, 0).measures(bench(spirit, heard))
    assert (asr["direction"], tts["direction"]) == ("S→T, 3 shots", "T→S, 3 shots")
    assert [one["metric"] for one in (*asr["figures"], *tts["figures"])] == ["WER", "CER", "unit error rate"]
    for one in (*asr["figures"], *tts["figures"]):
        assert one["better"] == "lower"
        assert one["value_high"] >= one["trivial"], one["metric"]
        assert one["trivials"]["nothing"] == 1
    assert (asr["items"], asr["mean_shots"], asr["skipped"]) == (12, 3, [])


def test_a_model_that_sees_the_answer_recognises_and_speaks_without_errors(spirit: SpiritLM, tmp_path: Path) -> None:
    task, heard = transcribed(tmp_path)
    known = []
    for one in task.utterances:
        speech, text = ("speech", heard.tokens(one.audio)), ("text", one.text)
        known += [spirit.layout.prompt(parts, "any") for parts in ((speech, text), (text, speech))]
    config = CONFIG.model_copy(update={"shots": 0})
    measures = list(task.drawn(12, 0).measures(Bench(knowing(spirit, known), heard, config)))
    assert [one["value"] for measure in measures for one in measure["figures"]] == [0, 0, 0]


def test_solved_utterances_are_others_with_other_words(tmp_path: Path) -> None:
    rows = [Utterance(f"u{n}", WORD_LIST[n % 8], tmp_path / str(n)) for n in range(40)]
    drawn = TranscriptTask("x", "LibriSpeech", tmp_path, tuple(rows)).drawn(4, 0)
    asked, pool = ({one.text for one in part} for part in (drawn.utterances, drawn.pool))
    assert (len(asked), len(pool)) == (4, 2)
    assert asked.isdisjoint(pool)


def test_a_random_model_keeps_styles_at_chance(spirit: SpiritLM, styled: StyleTask) -> None:
    """Of eight intervals of 95 % one may leave chance out; their mean may not be far from it."""
    found: list[dict[str, Any]] = []
    for seed in range(2):
        asked = CONFIG.model_copy(update={"seed": seed, "max_new_tokens": 16})
        measures = run_suite({"random": lambda: spirit}, [styled], asked)["measures"]
        assert [measure["direction"] for measure in measures] == ["T→T", "S→S", "T→S", "S→T"]
        found += [one for measure in measures for one in measure["figures"]]
        assert {measure["items"] for measure in measures} == {80}
    assert {(one["chance"], one["trivial"], one["ceiling"]) for one in found} == {(0.5, 0.5, 1.0)}
    assert sum(one["value_low"] <= 0.5 <= one["value_high"] for one in found) >= 7
    assert float(np.mean([one["value"] for one in found])) == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / 640))


def test_saying_everything_four_times_makes_no_figure_surer(spirit: SpiritLM, labelled: LabelTask) -> None:
    again = [replace(row, key=f"{row.key}/{n}", item=row.key) for row in labelled.test[:12] for n in range(4)]
    once, often = (
        list(replace(labelled, test=tuple(rows), train=()).measures(bench(spirit)))
        for rows in (labelled.test[:12], again)
    )
    for one, four in zip(once, often, strict=True):
        assert (one["items"], four["items"]) == (12, 48)
        assert one["figures"] == four["figures"]


def test_a_model_that_goes_on_in_the_same_style_keeps_it_always(spirit: SpiritLM, styled: StyleTask) -> None:
    like = {row.label: _parts(row.side) for row in styled.train}
    asked = CONFIG.model_copy(update={"temperature": 0})
    for crosses, directions in ((False, ["T→T", "S→S"]), (True, ["T→S", "S→T"])):
        known = [
            spirit.layout.prompt([first, second], "any")
            for row in styled.test
            for first in _parts(row.side)
            for second in like[row.label]
            if (first[0] != second[0]) == crosses
        ]
        rigged = knowing(spirit, known)
        measures = run_suite({"rigged": lambda: rigged}, [styled], asked)["measures"]  # noqa: B023 - called at once
        kept = {measure["direction"]: measure["figures"][0]["value"] for measure in measures}
        assert [kept[direction] for direction in directions] == [1.0, 1.0]


def _parts(side: Side) -> list[tuple[Kind, str]]:
    return [("text", str(side.text)), ("speech", str(side.tokens))]


def choices(folder: Path, count: int = 60) -> Path:
    rng = np.random.default_rng(8)
    rows = [
        {"question": f"{words(rng, 4)} {n}", "choices": [words(rng, 2) for _ in range(4)], "answer": n % 4}
        for n in range(count)
    ]
    return write(folder / "choices.jsonl", rows)


def test_choices_of_a_random_model_are_at_chance_and_of_a_rigged_one_right(spirit: SpiritLM, tmp_path: Path) -> None:
    (task,) = read_choices("mine", choices(tmp_path))
    right = [harness.laid_out(spirit, one.question, f" {one.choices[one.answer]}") for one in task.questions]
    known = [[*one.prompt, *one.answer] for one in right]
    rigged = knowing(spirit, known)
    report = run_suite({"random": lambda: spirit, "rigged": lambda: rigged}, [task], CONFIG)
    random, right = report["measures"]
    assert (random["items"], random["direction"]) == (60, "T")
    assert [one["metric"] for one in random["figures"]] == ["acc", "acc_norm"]
    for one in random["figures"]:
        assert one["chance"] == 0.25
        assert one["value_low"] <= 0.25 <= one["value_high"]
    assert [one["value"] for one in right["figures"]] == [1.0, 1.0]
    assert "acc_norm" in table(report).plain()
    assert "acc_norm" in page(report)


def test_groups_of_lm_eval_are_one_row(spirit: SpiritLM, tmp_path: Path) -> None:
    """As mmlu is: tasks in YAML files, read and averaged by lm-eval itself."""
    pytest.importorskip("lm_eval")
    for name in ("first", "second"):
        data = choices(tmp_path / name, 12) / "choices.jsonl"
        files = f"{{data_files: {{test: {data}}}, cache_dir: {tmp_path / 'cache'}}}"
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {files}\noutput_type: multiple_choice\n"
            "test_split: test\ndoc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer\n"
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        )
    group = "group: both\ntask: [first, second]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    (tmp_path / "both.yaml").write_text(group)
    manager = harness.task_manager(["both", "first"], include_path=str(tmp_path), include_defaults=False)
    both, first = (
        measure
        for name in ("both", "first")
        for measure in NamedTask(name, "lm-eval", tmp_path, manager, 8).measures(bench(spirit))
    )
    assert (both["items"], set(both["subtasks"])) == (16, {"first", "second"})
    (figure,) = both["figures"]
    assert figure["chance"] == 0.25
    assert figure["value_low"] < figure["value"] < figure["value_high"]
    assert (first["items"], first["figures"][0]["metric"]) == (8, "acc")
    with pytest.raises(SpiritLMError, match="knows no task 'third'"):
        harness.task_manager(["third"], include_path=str(tmp_path), include_defaults=False)


def test_choices_are_asked_as_lm_eval_asks_them(spirit: SpiritLM, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (task,) = read_choices("mine", choices(tmp_path / "mine", 12))
    files = f"{{data_files: {{test: {tmp_path / 'mine' / 'choices.jsonl'}}}, cache_dir: {tmp_path / 'cache'}}}"
    (tmp_path / "mine.yaml").write_text(
        f"task: mine\ndataset_path: json\ndataset_kwargs: {files}\noutput_type: multiple_choice\n"
        "test_split: test\ndoc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    manager = harness.task_manager(["mine"], include_path=str(tmp_path), include_defaults=False)
    (ours,), (theirs,) = (
        list(one.measures(bench(spirit))) for one in (task, NamedTask("mine", "lm-eval", tmp_path, manager, None))
    )
    assert ours["figures"] == theirs["figures"]


def test_without_lm_eval_its_tasks_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    asked = CONFIG.model_copy(update={"lm_eval": ("mmlu",)})
    with pytest.raises(SpiritLMError, match=r"pip install 'spiritlm-pipeline\[text-tasks\]'"):
        run_suite({"m": lambda: pytest.fail("loaded in vain")}, [], asked)


def test_requests_of_lm_eval_are_scored_as_text_behind_text(spirit: SpiritLM) -> None:
    asked = [harness.laid_out(spirit, "one two three", f" {word} five") for word in ("four", "nine")]
    ours = [judged(spirit, [("text", "one two three")], "text", f"{word} five") for word in ("four", "nine")]
    assert asked == ours
    found = harness.scores(spirit, asked)
    np.testing.assert_allclose([total for total, _ in found], log_likelihoods(spirit, ours), rtol=1e-5)
    rigged = knowing(spirit, [[*asked[0].prompt, *asked[0].answer]])
    assert [greedy for _, greedy in harness.scores(rigged, asked)] == [True, False]
    long = harness.laid_out(spirit, "one " * 400, " two")
    assert len(long.prompt) + len(long.answer) == 256
    assert long.prompt[0] == spirit.layout.prompt([], "text")[0]


def test_answers_for_lm_eval_end_where_it_says(spirit: SpiritLM) -> None:
    prompt = spirit.layout.prompt([("text", "one two three four")], "any")
    rigged = knowing(spirit, [prompt])
    assert harness.continued(rigged, "one two", {"until": ["four"], "max_gen_toks": 20}).strip() == "three"
    assert harness.continued(rigged, "one two", {"until": "x", "max_gen_toks": 20}) == "three four"


def test_text_judge_by_reference(tmp_path: Path, spirit: SpiritLM, styled: StyleTask, model_folder: Path) -> None:
    """Any sequence classifier of transformers whose labels are the set's own, in any case."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "judge")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id, id2label={0: "LOW", 1: "HIGH"}, label2id={"LOW": 0, "HIGH": 1},
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    asked = CONFIG.model_copy(update={"text_judge": (tmp_path / "judge").as_uri()})
    first, *_ = styled.drawn(10, 0).measures(Bench(spirit, Recordings(), asked))
    assert {answer["judged"] for answer in first["answers"] if answer["given"]} <= {"low", "high"}
    assert first["items"] == 10
    with pytest.raises(ModelReferenceError, match="tells apart LOW, HIGH, the set good, bad"):
        given_text_judge(str(asked.text_judge), ("good", "bad"))
    with pytest.raises(ModelReferenceError, match="no classifier that transformers loads"):
        given_text_judge(tmp_path.as_uri(), ("low", "high"))


def test_speech_judge_by_reference(tmp_path: Path) -> None:
    """It hears what the vocoder makes of speech tokens."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    class Speaker:
        has_vocoder = True

        def decode(self, tokens: str) -> np.ndarray:
            return np.full(16_000, tokens.count("[Hu1]") - 1, np.float32)

    config = Wav2Vec2Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=4, id2label={0: "LOW", 1: "HIGH"},
        label2id={"LOW": 0, "HIGH": 1},
    )  # fmt: skip
    model = Wav2Vec2ForSequenceClassification(config)
    torch.nn.init.constant_(model.classifier.bias, 9.0)
    with torch.no_grad():
        model.classifier.bias[0] = 0.0
    model.save_pretrained(tmp_path / "judge")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "judge")
    reference, speaker = (tmp_path / "judge").as_uri(), cast("SpeechTokenizer", Speaker())
    assert given_speech_judge(reference, ("low", "high"), speaker)(["[Hu1]", "", "[Hu2]"]) == ["high", "", "high"]
    Speaker.has_vocoder = False
    with pytest.raises(ModelReferenceError, match="no vocoder"):
        given_speech_judge(reference, ("low", "high"), speaker)
