"""Few-shot tasks on a user's data: the prompts, the figures, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spiritlm_core.cli.app import app
from spiritlm_core.errors import SourceError, SpiritLMError
from spiritlm_core.finetune.config import DataConfig, SplitConfig
from spiritlm_core.finetune.fewshot import FewShotConfig, run_few_shot
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.rows import TaskRow, split_of
from spiritlm_core.finetune.template import Part, find_template
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lm.generate.fewshot import Asked, FewShot, draw_shots
from spiritlm_core.lm.generate.prompts import Kind, prompt_ids
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.distances import judge
from spiritlm_core.tokens.counter import key_of
from tests.finetune.makers import labelled, write_lines
from tests.support.small_model import LABELS

SPLIT = SplitConfig(held_out_share=0.3)
CONFIG = FewShotConfig(shots=2, questions=8, max_new_tokens=12, bootstrap_samples=100)
NAMES = {"asr": {"text": "label"}, "tts": {"text": "label"}, "classification": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "data.jsonl", labelled(60, seed=3))


@pytest.fixture(scope="module")
def spirit(published: Path) -> SpiritLM:
    return SpiritLM.from_pretrained(published)


def rows_of(data: Path, task: str, **settings: Any) -> list[Any]:
    config = DataConfig(path=str(data), columns=NAMES.get(task, {}), **settings)
    return read_rows(config, find_template(task), StatCache())


@pytest.mark.parametrize("task", ["asr", "tts", "classification"])
def test_prompts_are_those_of_the_paper_and_figures_repeat(
    task: str, data: Path, spirit: SpiritLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, rows = find_template(task), rows_of(data, task)
    asked: list[Asked] = []
    monkeypatch.setattr(FewShot, "answers", lambda _, laid_out: asked.extend(laid_out) or ["low"] * len(laid_out))
    found = run_few_shot(spirit, template, rows, SPLIT, CONFIG)
    assert (found.mean_shots, len(asked)) == (2, 8)
    kinds: tuple[Kind, Kind] = ("text", "speech") if task == "tts" else ("speech", "text")
    sides = {row.key: {kind: side(row, kind, spirit) for kind in kinds} for row in rows}
    splits = {row.key: split_of(row.key[:20], row.split, SPLIT) for row in rows}
    train, held_out = ([row for row in rows if splits[row.key] == name] for name in ("train", "held_out"))
    targets = sorted(held_out, key=lambda row: key_of(CONFIG.seed, row.key))[:8]
    for one, target in zip(asked, targets, strict=True):
        shots = drawn(train, target, CONFIG.shots, task)
        parts = [(kind, sides[shot.key][kind]) for shot in shots for kind in kinds]
        expected = prompt_ids([*parts, (kinds[0], sides[target.key][kinds[0]])], spirit.vocabulary, kinds[1])
        assert list(one.prompt) == expected


def side(row: TaskRow, kind: Kind, spirit: SpiritLM) -> list[int]:
    """Ids of the recording, or of the text."""
    if kind == "speech":
        return spirit.layout.speech_ids(str(row.recording_fields()["audio"].tokens))
    ids: list[int] = spirit.layout._text.encode_words(said(row)).ids.tolist()  # type: ignore[attr-defined]
    return ids


def said(row: TaskRow) -> str:
    return next(iter(row.text_fields().values()))


def drawn(train: list[TaskRow], target: TaskRow, most: int, task: str) -> list[TaskRow]:
    words = (lambda _: "") if task == "tts" else said
    shots = draw_shots(train, target, most, 0, key=lambda r: r.key, said=words, balanced=task == "classification")
    assert task != "asr" or said(target) not in map(said, shots)
    return shots


def test_figures_of_every_task(data: Path, spirit: SpiritLM) -> None:
    wanted = {"asr": {"wer", "cer"}, "tts": {"unit_error_rate"}, "classification": {"accuracy", "chance", "majority"}}
    for task, names in wanted.items():
        template, rows = find_template(task), rows_of(data, task)
        found = [run_few_shot(spirit, template, rows, SPLIT, CONFIG, batch_size=n).to_dict() for n in (3, 8)]
        assert found[0] == found[1]
        assert names <= found[0].keys()
        assert found[0]["questions"] == 8


def test_a_transcript_is_no_longer_than_its_recording_and_other_answers_may_be(
    data: Path, spirit: SpiritLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe: list[bool] = []
    monkeypatch.setattr(
        FewShot, "answers", lambda self, asked: transcribe.append(self.transcribes) or [""] * len(asked)
    )
    for task in ("asr", "tts", "classification"):
        run_few_shot(spirit, find_template(task), rows_of(data, task), SPLIT, CONFIG)
    asr = find_template("asr")
    translated = asr.model_copy(update={"question": (*asr.question, Part(text="In French:"))})
    run_few_shot(spirit, translated, rows_of(data, "asr"), SPLIT, CONFIG)
    assert transcribe == [True, False, False, False]


def test_shots_show_labels_evenly(data: Path) -> None:
    rows = rows_of(data, "classification")
    labels = [said(row) for row in drawn(rows[1:], rows[0], 6, "classification")]
    assert sorted(labels) == sorted([*LABELS] * 2)
    assert labels != sorted(labels)


def test_a_tuned_model_needs_no_shots(tuned: Path, data: Path) -> None:
    spirit = SpiritLM.from_pretrained(tuned)
    config = FewShotConfig(shots=0, questions=40, bootstrap_samples=100)
    found = run_few_shot(spirit, find_template("classification"), rows_of(data, "classification"), SPLIT, config)
    assert found.figures["accuracy_low"] > 0.5
    assert found.figures["chance"] == pytest.approx(1 / 3)
    assert found.mean_shots == 0


def test_shots_that_do_not_fit_are_left_out(data: Path, spirit: SpiritLM) -> None:
    config = CONFIG.model_copy(update={"shots": 12})
    found = run_few_shot(spirit, find_template("asr"), rows_of(data, "asr"), SPLIT, config)
    assert 0 < found.mean_shots < 12


def test_without_held_out_rows_there_is_nothing_to_ask(data: Path, spirit: SpiritLM) -> None:
    with pytest.raises(SourceError, match="60 rows are in the train split, 0 are held out"):
        run_few_shot(spirit, find_template("asr"), rows_of(data, "asr"), SplitConfig(held_out_share=0), CONFIG)


def test_metrics_by_hand() -> None:
    found = judge("wer", ["Press one!", "two"], ["press won", "two"], samples=100)
    assert found["wer"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["cer"] == pytest.approx(2 / 12, abs=1e-6)  # one → won
    assert judge("unit_error_rate", ["[Hu1][Hu2][Pi3][Hu2]"], ["[Hu1][Hu3]"])["unit_error_rate"] == 0.5
    found = judge("accuracy", ["a", "a", "b", "a"], ["a", "b", "b", "a"], labels=("a", "b"))
    assert (found["accuracy"], found["chance"], found["majority"]) == (0.75, 0.5, 0.75)
    assert judge("none", ["a"], ["b"]) == {}


def test_the_command(base: Path, recordings: Path) -> None:
    asked = ["fewshot", "classification", str(base), str(recordings), "--column", "audio=wav"]
    asked += ["--shots", "2", "--questions", "5"]
    done = CliRunner().invoke(app, [*asked, "--held-out", "0.3", "--json", "--answers"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["questions"] == 5 == len(found["answers"])
    assert set(found["rejected"].values()) == {1}
    assert {answer["given"] for answer in found["answers"]} <= set(LABELS)
    lines = CliRunner().invoke(app, [*asked, "--held-out", "0.3"], catch_exceptions=False).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        "task", "questions", "mean_shots", "accuracy", "chance", "majority",
    ]  # fmt: skip
    with pytest.raises(SpiritLMError, match="--column audio: write FIELD=COLUMN"):
        CliRunner().invoke(app, [*asked, "--column", "audio"], catch_exceptions=False)
