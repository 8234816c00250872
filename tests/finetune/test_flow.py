"""`spiritlm finetune` from a data set of recordings to a folder, killed on the way, and again from the lake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.finetune.makers import write_lines
from tests.integration.runs import spiritlm, start
from tests.support.watching import kill_group, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TINY = (
    "lm.steps=60", "lm.tokens_per_step=512", "tokens.context_length=64", "tokens.window=4", "lm.validate_every=20",
    "lm.optimizer.learning_rate=1e-2", "lm.optimizer.warmup_steps=5", "data.columns={audio: wav}",
    "data.split.held_out_share=0.25", "measures.bootstrap_samples=100", "compute.training.checkpoint_every=10",
    "compute.training.log_every=5",
)  # fmt: skip


def arguments(base: Path, data: Path, folder: Path, *more: object) -> list[object]:
    settings = [part for setting in TINY for part in ("--set", setting)]
    where = ["--base", base, "--data", data, "--lake", folder / "lake"]
    return ["finetune", "classification", *where, *settings, "--json", *more]


def test_from_recordings_to_a_folder(base: Path, recordings: Path, tmp_path: Path) -> None:
    from spiritlm_core import SpiritLM

    home = tmp_path / "prefect"
    process = start(*arguments(base, recordings, tmp_path), home=home)
    checkpoints = tmp_path / "lake" / "work" / "finetuned"
    wait_for(lambda: list(checkpoints.glob("*/checkpoints/step-*/state.json")), process)
    assert kill_group(process)
    done = json.loads(spiritlm(*arguments(base, recordings, tmp_path, "--out", tmp_path / "tuned"), home=home))
    stages = done["stages"]
    assert stages["task_units"]["shards_computed"] == 0  # from before the kill
    assert stages["task_units"]["rejected"] == 2
    assert stages["task_examples"]["reasons"] == {"nothing in label": 1} or stages["task_examples"]["rejected"] == 1
    assert done["metrics"]["after"]["loss"] < done["metrics"]["before"]["loss"]
    again = json.loads(spiritlm(*arguments(base, recordings, tmp_path), home=home))
    assert all(stage["shards_computed"] == 0 for stage in again["stages"].values())
    assert again["metrics"] == done["metrics"]
    spirit = SpiritLM.from_pretrained(tmp_path / "tuned")
    answer = spirit.generate([recordings.parent / "1.flac"], "text", max_new_tokens=10)
    assert answer.text
    assert answer.finish == "eos"


def test_what_is_wrong_is_said_in_one_line(base: Path, recordings: Path, tmp_path: Path) -> None:
    home = tmp_path / "prefect"
    said = spiritlm("finetune", "asr", "--base", base, "--data", recordings, "--lake", tmp_path / "lake",
                    home=home, status=1)  # fmt: skip
    assert "there is no column 'text' for the field 'text' of template asr, only label, wav" in said
    assert "Traceback" not in said


def test_one_bad_row_costs_that_row_and_bad_rows_alone_are_an_error(published: Path, tmp_path: Path) -> None:
    rows = [{"audio": "[Hu7][Hu9]", "text": "good"}, {"audio": "[Hu7][Hu9999]", "text": "bad"},
            {"audio": "[Hu8]", "text": "fine"}]  # fmt: skip
    settings = ["--set", "compute.executor=inline", "--set", "lm.steps=2"]
    where = ["--base", published, "--lake", tmp_path / "lake", *settings, "--data"]
    data = write_lines(tmp_path / "d.jsonl", rows)
    done = json.loads(spiritlm("finetune", "asr", *where, data, "--json", home=tmp_path / "prefect"))
    assert done["stages"]["task_examples"]["reasons"] == {"'[Hu9999]' is not a speech token of this model": 1}
    assert done["stages"]["task_examples"]["rows_out"] == 2
    bad = write_lines(tmp_path / "bad.jsonl", rows[1:2])
    said = spiritlm("finetune", "asr", *where, bad, home=tmp_path / "prefect", status=1)
    assert "tokens.context_length 1024 is lowered to 128" in said
    assert "no row is left to train on: 1 of 1 rows were rejected" in said
    assert "does not answer" not in said
    assert "Traceback" not in said


def test_the_flow_has_a_form() -> None:
    from flows.pipeline import finetune

    assert set(finetune.parameters.properties) == {"recipe", "lake", "data", "base", "overrides"}
    assert all(field.get("description") for field in finetune.parameters.properties.values())


def test_a_model_that_is_not_there(recordings: Path, tmp_path: Path) -> None:
    for base, message in (("lake://mine", "has no published model of a recipe 'mine'"), ("none", "is not a folder")):
        said = spiritlm("finetune", "asr", "--base", base, "--data", recordings, "--lake", tmp_path / "lake",
                        home=tmp_path / "prefect", status=1)  # fmt: skip
        assert message in said
        assert "Traceback" not in said
