"""What is wrong with rows or settings is found before the work: the rest goes on, and nothing left is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.graphs.finetuning import finetuning
from flows.recipes import find_finetune_recipe
from spiritlm_core.cli.app import app
from spiritlm_core.errors import NothingToTrainOnError, RecipeError, SourceError
from spiritlm_core.finetune.artifact_stages import MeasureStage
from spiritlm_core.finetune.base import fitted_to
from spiritlm_core.finetune.config import DataConfig, FinetuneRecipe, MeasureConfig, SplitConfig
from spiritlm_core.finetune.fewshot import FewShotConfig, run_few_shot
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.template import find_template
from spiritlm_core.intake.files import local_uri
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.plan.graph import plan_graph
from tasks.account import planned, reuse
from tests.finetune.makers import examples_of, write_lines
from tests.lake.stages import execute

BAD = ["[Hu9999]", "[Hu7][Hu8", "[Hu7][Text]", "[Hu7] hello [Hu8]", "[Pi77][Hu1]"]
LONG = "[Hu1][Hu2]" * 100  # the base model takes 128 tokens


def recipe_of(data: Path, *settings: str) -> FinetuneRecipe:
    return find_finetune_recipe("asr", [f"data.path={data}", *settings])


def test_sequences_longer_than_the_base_model_takes_are_shortened(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert fitted_to(recipe_of(tmp_path), published, said.append).tokens.context_length == 128
    assert said == ["  tokens.context_length 1024 is lowered to 128: the base model takes no more"]
    for settings in (["tokens.context_length=64"], ["lm.rope_base=20000"]):
        assert fitted_to(kept := recipe_of(tmp_path, *settings), published, said.append) is kept
    uneven = recipe_of(tmp_path, "tokens.context_length=1000", "lm.tokens_per_step=5000")
    with pytest.raises(RecipeError, match="context_length is 1000, the base model takes 128 tokens, and lm.tokens_per"):
        fitted_to(uneven, published, said.append)
    assert len(said) == 1


def check_of(recipe: FinetuneRecipe, base: Path, folder: Path) -> list[str]:
    """What is said before the training on the examples of `recipe`, made as a run makes them."""
    lake, said = Lake(folder / "lake"), list[str]()
    graph = finetuning(recipe.model_copy(update={"base": local_uri(base)}), lake)
    for name, plan in plan_graph(graph, lake).stages.items():
        if isinstance(plan, TablePlan):
            execute(lake, plan)
        elif name == "finetuned":
            plan.call.stage.check(plan.tables(lake), said.append)
    return said


def test_what_the_command_planned_the_flow_takes_over(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(write_lines(tmp_path / "d.jsonl", [{"audio": "[Hu7]", "text": "a"}]))
    recipe = recipe.model_copy(update={"base": local_uri(published)})
    lake, made = Lake(tmp_path / "lake"), []
    monkeypatch.setattr("tasks.account.plan_graph", lambda *of, **how: made.append(of) or plan_graph(*of, **how))
    assert reuse(finetuning(recipe, lake), lake) is None
    assert planned(finetuning(recipe, lake), lake, (), refit=False, say=print).recipe == recipe.name
    assert len(made) == 1


@pytest.mark.parametrize("bad", BAD)
def test_a_row_with_a_token_that_the_model_lacks_is_rejected_and_the_others_are_not(
    published: Path, tmp_path: Path, bad: str
) -> None:
    rows = [{"audio": "[Hu7]", "text": "a"}, {"audio": bad, "text": "b"}, {"audio": "[Hu8]", "text": "c"}]
    found = examples_of(write_lines(tmp_path / "d.jsonl", rows), published, find_template("asr")).read().to_pylist()
    assert [row["reject_stage"] for row in found] == [None, "task_examples", None]
    assert found[1]["reject_reason"].endswith(": row 2")


def test_half_of_the_rows_lost_and_none_held_out_are_told(published: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"audio": "[Hu9999]", "text": "a"}, {"audio": "[Hu8]", "text": "c"}]
    recipe = recipe_of(write_lines(tmp_path / "d.jsonl", rows), "data.split.held_out_share=0")
    told = " ".join(check_of(recipe, published, tmp_path))
    assert "1 of 2 rows were rejected (1 times: '[Hu9999]' is not a speech token of this model)" in told
    assert "no example is held out" in told


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"audio": "[Hu9999]", "text": "a"}, "2 times: '[Hu9999]' is not a speech token of this model"),
        ({"audio": "[Hu1]", "text": ""}, "2 times: nothing in text"),
        ({"audio": LONG, "text": "a"}, "2 times: too long"),
        ({"audio": "gone.wav", "text": "a"}, "2 times: audio"),
    ],
)
def test_nothing_left_to_train_on_is_an_error_with_the_commonest_reasons(
    published: Path, tmp_path: Path, row: dict[str, str], reason: str
) -> None:
    rows = [{**row, "n": 1}, {**row, "audio": row["audio"] + ("[Hu3]" if "[" in row["audio"] else "")}]
    rows[1]["text"] += " b" if row["text"] else ""
    recipe = recipe_of(write_lines(tmp_path / "d.jsonl", rows), "tokens.context_length=128")
    with pytest.raises(NothingToTrainOnError) as error:
        check_of(recipe, published, tmp_path)
    assert "no row is left to train on: 2 of 2 rows were rejected" in str(error.value)
    assert reason in str(error.value)


def test_a_held_out_row_that_is_longer_than_the_base_model_takes_is_not_asked(published: Path, tmp_path: Path) -> None:
    rows = [{"audio": LONG, "text": "a"}, {"audio": "[Hu1]", "text": "b"}]
    template = find_template("asr")
    table = examples_of(write_lines(tmp_path / "d.jsonl", rows), published, template, share=0.99, length=512)
    stage = MeasureStage(MeasureConfig(metric="wer"), {"base": published, "finetuned": published})
    (tmp_path / "out").mkdir()
    found = stage.build({"task_examples": table}, tmp_path / "out", tmp_path, lambda *_: None)
    assert found["held_out"] == 1
    assert found["before"]["judged"] == 1


def few_shot(published: Path, path: Path, rows: list[dict[str, str]]) -> Any:
    data = write_lines(path, [{"split": "train", **row} for row in rows])
    config, template = DataConfig(path=str(data), split_column="split"), find_template("asr")
    asked = FewShotConfig(shots=1, questions=8, max_new_tokens=4, bootstrap_samples=100)
    return run_few_shot(
        SpiritLM.from_pretrained(published), template, read_rows(config, template, StatCache()), SplitConfig(), asked
    )


def test_few_shot_questions_that_cannot_be_asked_are_rejected_and_the_others_are_asked(
    published: Path, tmp_path: Path
) -> None:
    rows = [{"audio": "[Hu1]", "text": "a"}, {"audio": "[Hu2]", "text": "b", "split": "test"}]
    bad = [{"audio": tokens, "text": "x", "split": "test"} for tokens in (*BAD, LONG)]
    found = few_shot(published, tmp_path / "d.jsonl", [*rows, *bad])
    assert found.right == ("b",)
    assert sum(found.rejected.values()) == len(bad)
    assert "'[Hu9999]' is not a speech token of this model: row 3" in found.rejected
    assert any(
        reason.startswith("too long: question and answer take more than the model's") for reason in found.rejected
    )
    with pytest.raises(SourceError, match="no held-out row can be used: 1 times: .*; and 3 other reasons"):
        few_shot(published, tmp_path / "bad.jsonl", [rows[0], *bad])
    with pytest.raises(SourceError, match="0 are held out, and both are needed.*Rejected: 1 times: text: holds list"):
        few_shot(published, tmp_path / "none.jsonl", [rows[0], {"audio": "[Hu1]", "text": ["x"]}])  # type: ignore[dict-item]


def test_the_command_says_what_was_rejected(published: Path, tmp_path: Path) -> None:
    rows = [{"audio": "[Hu1]", "text": "a", "split": "train"}, {"audio": "[Hu2]", "text": "b", "split": "test"}]
    data = write_lines(tmp_path / "d.jsonl", [*rows, {"audio": LONG, "text": "c", "split": "test"}])
    asked = ["fewshot", "asr", str(published), str(data), "--shots", "1", "--split-column", "split"]
    done = CliRunner().invoke(app, [*asked, "--max-new-tokens", "4", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["questions"] == 1
    assert "1 rows rejected: 1 times: too long: question and answer take more than the model's context" in done.stderr
