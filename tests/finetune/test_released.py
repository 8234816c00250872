"""Few-shot tasks of the released models: their own layout of prompts, and their own streams."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiritlm_core import SpiritLM
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.finetune.config import DataConfig, SplitConfig
from spiritlm_core.finetune.fewshot import FewShotConfig, run_few_shot
from spiritlm_core.finetune.reading import read_rows
from spiritlm_core.finetune.stage import load_layout
from spiritlm_core.finetune.template import find_template
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.tokens.released import ReleasedTextTokenizer
from tests.finetune.makers import labelled, write_lines
from tests.support.released import Roots


@pytest.mark.parametrize("variant", ["base", "expressive"])
@pytest.mark.parametrize("task", ["asr", "tts", "classification"])
def test_few_shot(released: Roots, tmp_path: Path, variant: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_lines(tmp_path / "data.jsonl", labelled(30))
    columns = {} if task == "classification" else {"text": "label"}
    rows = read_rows(DataConfig(path=str(data), columns=columns), find_template(task), StatCache())
    spirit = SpiritLM.from_pretrained(released("tiny"), "cpu", "float32", variant)
    asked: list[str] = []
    encode = ReleasedTextTokenizer.encode
    monkeypatch.setattr(
        ReleasedTextTokenizer,
        "encode",
        lambda self, string, mark="": asked.append(string) or encode(self, string, mark),
    )
    config = FewShotConfig(shots=1, questions=3, max_new_tokens=5, bootstrap_samples=100)
    found = run_few_shot(spirit, find_template(task), rows, SplitConfig(held_out_share=0.3), config)
    assert len(found.given) == 3
    assert found.mean_shots == 1
    marker = "[Speech]" if task == "tts" else "[Text]"
    prompt = max((string for string in asked if string.endswith(marker)), key=len)  # labels follow the marker
    assert ("[St1][Pi2]" in prompt) is (variant == "expressive")
    assert prompt.count("[Speech]") == prompt.count("[Text]") == 2


def test_they_are_not_fine_tuned(released: Roots) -> None:
    with pytest.raises(ModelReferenceError, match="fine-tuning starts from a model that was trained here"):
        load_layout(released("tiny") / "spiritlm_model" / "spirit-lm-base-7b")
