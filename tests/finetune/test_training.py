"""Fine-tuning learns, on the answers alone, all weights or adapters; a killed run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.finetune.artifact_stages import FinetuneStage, MeasureStage, load_tuned
from spiritlm_core.finetune.config import MeasureConfig, MeasuresConfig
from spiritlm_core.finetune.source import ExampleSource, read_examples
from spiritlm_core.finetune.template import find_template
from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LoraConfig
from spiritlm_core.lm.model.network import load_pretrained
from spiritlm_core.lm.train.data import Batch
from spiritlm_core.lm.train.objective import Objective
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.pack import packed
from tests.finetune.makers import COMPUTE, TOKENS, examples_of, tune, tuning, write_lines
from tests.support.small_model import LABELS


def measured(base: Path, tuned: Path, examples: TableView, out: Path) -> dict[str, Any]:
    out.mkdir()
    measures = MeasuresConfig(examples=80, bootstrap_samples=100)
    stage = MeasureStage(MeasureConfig(metric="accuracy", measures=measures), {"base": base, "finetuned": tuned})
    return stage.build({"task_examples": examples}, out, out, lambda *_: None)


@pytest.mark.parametrize("kind", ["all weights", "adapters"])
def test_a_task_is_learnt(published: Path, classification: TableView, tuned: Path, tmp_path: Path, kind: str) -> None:
    if kind == "adapters":
        summary = tune(tuning(lora=LoraConfig(rank=8, train_embeddings=True)), published, classification, tmp_path)
        assert summary["steps"] == 200
    found = measured(
        published, tmp_path / "out" if kind == "adapters" else tuned, classification, tmp_path / "measures"
    )
    assert found["labels"] == sorted(LABELS)
    assert found["after"]["accuracy"] > 0.8
    assert found["after"]["accuracy_low"] > found["after"]["majority"] + 0.2
    assert found["after"]["loss"] < 0.5 * found["before"]["loss"]
    assert found["before"]["accuracy"] < 0.6
    lines = (tmp_path / "measures" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == found["after"]["judged"] == 80


ROWS = {
    "asr": {"audio": "[Hu{0}][Hu9]", "text": "press {0}"},
    "tts": {"audio": "[Hu{0}][Hu9]", "text": "press {0}"},
    "speech-to-speech": {"audio": "[Hu{0}]", "answer_audio": "[Hu9][Hu{0}]"},
    "instruction": {"instruction": "say {0}", "answer": "{0}"},
}


@pytest.mark.parametrize("task", ROWS)
def test_every_task_is_trained_and_measured(task: str, published: Path, tmp_path: Path) -> None:
    rows = [{name: value.format(n) for name, value in ROWS[task].items()} for n in range(10, 40)]
    if task == "instruction":  # every other answer is spoken, every third instruction about a recording
        rows = [{**row, "answer": None, "answer_audio": "[Hu7]"} if n % 2 else row for n, row in enumerate(rows)]
        rows = [{**row, "audio": "[Hu3]"} if n % 3 else row for n, row in enumerate(rows)]
    template = find_template(task)
    examples = examples_of(write_lines(tmp_path / "rows.jsonl", rows), published, template, share=0.3)
    summary = tune(tuning(6), published, examples, tmp_path)
    assert summary["loss"] > 0
    (tmp_path / "measures").mkdir()
    config = MeasureConfig(metric=template.metric, measures=MeasuresConfig(max_new_tokens=6, bootstrap_samples=100))
    stage = MeasureStage(config, {"base": published, "finetuned": tmp_path / "out"})
    found = stage.build({"task_examples": examples}, tmp_path / "measures", tmp_path, lambda *_: None)
    assert found["after"]["loss"] < found["before"]["loss"]
    wanted = {"wer": {"wer", "cer", "judged"}, "unit_error_rate": {"unit_error_rate", "judged"}, "none": set()}
    assert wanted[template.metric] <= found["after"].keys()
    kinds = {row["answer_kind"] for row in examples.read().to_pylist()}
    assert kinds == {"asr": {"text"}, "instruction": {"text", "speech"}}.get(task, {"speech"})


def test_adapters_alone_are_the_merged_model(published: Path, classification: TableView, tmp_path: Path) -> None:
    from peft import PeftModel

    for export in ("merged", "adapter"):
        lora = LoraConfig(rank=4, export=export)
        tune(tuning(10, lora=lora), published, classification, tmp_path / export)
    merged, adapter = (tmp_path / export / "out" for export in ("merged", "adapter"))
    assert not (adapter / "model.safetensors").exists()
    apart = PeftModel.from_pretrained(load_pretrained(published), str(adapter)).eval()
    ids = torch.tensor([[350, 351, 360, 12, 13]])
    with torch.inference_mode():
        wanted, found = load_pretrained(merged)(input_ids=ids).logits, apart(input_ids=ids).logits
        before = load_pretrained(published)(input_ids=ids).logits
        torch.testing.assert_close(load_tuned(published, adapter).model(input_ids=ids).logits, wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (before - wanted).abs().max() > 0.01


def test_the_loss_counts_answers_alone(published: Path, classification: TableView) -> None:
    vocabulary, examples = load_vocabulary(published), read_examples(classification, "train")[:6]
    batch = Batch.of([packed(examples, 256)], vocabulary.size)
    answers = np.concatenate([example.targets for example in examples])
    assert batch.answers.tolist() == answers.tolist()
    assert int(batch.counts()[:-1].sum()) == len(answers)
    assert batch.counts()[0] == len(answers)  # all of them are text
    ends = np.cumsum([len(example.ids) for example in examples]) - 1
    assert set(ends - 1) <= set(batch.predicting.tolist())  # EOS is learnt


def test_the_loss_is_that_of_the_answer_by_hand(published: Path, classification: TableView) -> None:
    vocabulary, (example, *_) = load_vocabulary(published), read_examples(classification, "train")
    whole = Batch.of([packed([example], 64)], vocabulary.size)
    objective = Objective(load_pretrained(published), "sdpa").eval()
    with torch.inference_mode():
        loss, nats = objective(whole)
        by_hand = torch.log_softmax(objective.lm(input_ids=whole.input_ids[:, : len(example.ids)]).logits[0], dim=-1)
    first = len(example.ids) - len(example.targets)
    expected = [-by_hand[first - 1 + i, token].item() for i, token in enumerate(example.targets.tolist())]
    np.testing.assert_allclose(nats.numpy(), expected, rtol=1e-4)
    assert loss.item() == pytest.approx(sum(expected), rel=1e-5)


def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    published: Path, classification: TableView, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    from spiritlm_core.errors import TrainingError

    config = tuning(24)
    tune(config, published, classification, tmp_path / "whole")
    (tmp_path / "cut" / "work").mkdir(parents=True)
    stage = FinetuneStage(config, {"base": published})
    tables, compute = {"task_examples": classification}, COMPUTE.model_copy(update={"log_every": 7})
    job = FitJob.of(stage, tables, tmp_path / "cut" / "out", tmp_path / "cut" / "work", compute)
    with pytest.raises(TrainingError, match="step 8 is saved"):
        job.run(lambda *_: job.stop_file.touch())
    tune(config, published, classification, tmp_path / "cut")
    curves = [pq.read_table(tmp_path / name / "out" / "metrics.parquet")["loss"] for name in ("whole", "cut")]
    assert curves[0].to_pylist() == curves[1].to_pylist()


def test_without_examples_there_is_nothing_to_train_on(published: Path, classification: TableView) -> None:
    empty = TableView.of(classification.read().slice(0, 0))
    source = ExampleSource(empty, TOKENS)
    with pytest.raises(NothingToTrainOnError, match="no example is in the train split"):
        next(source.batches(load_vocabulary(published), seed=0, start_state=None, rank=0, world_size=1))
    assert source.held_out(load_vocabulary(published), count=4, seed=0) == []
