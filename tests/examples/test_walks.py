"""The walks of CONTRIBUTING.md, followed word by word: what they add lies beside this file, and does its work here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from flows.recipes import find_recipe
from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.config import FrozenConfig
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.evaluate.suite.layouts import READERS, read_suite
from spiritlm_core.evaluate.suite.stage import run_suite
from spiritlm_core.intake.config import FolderSource
from spiritlm_core.intake.recordings import Recordings
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import TablePlan
from spiritlm_core.plan.graph import Graph, plan_graph
from spiritlm_core.speech.encoders.registry import FAMILIES, load_encoder
from tests.examples.stage import LoudnessStage
from tests.examples.task import read_plurals
from tests.lake.stages import execute
from tests.support.small_model import sound

HERE = Path(__file__).parent
GUIDE = (HERE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = ("source.py", "unispeech.py", "stage.py", "task.py", "command.py", "loss.py")


def blocks() -> Iterator[str]:
    """The code of the guide, without the indent of a list."""
    yield from re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guide_shows_what_is_tested(name: str) -> None:
    assert (HERE / name).read_text(encoding="utf-8") in list(blocks())


def test_a_stage_of_ones_own_is_one_file_and_one_line(tmp_path: Path) -> None:
    voice = sound("low", 3, 2.0)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/one.wav").write_bytes(encode_wav(voice))
    (tmp_path / "clips/two.wav").write_bytes(b"no sound")
    recipe, source = find_recipe("quickstart"), FolderSource(path=str(tmp_path / "clips"))
    lake, graph = Lake(tmp_path / "lake"), Graph(recipe.name)
    audio = graph.source(AudioStage, recipe.audio, Recordings((source,), recipe.language, recipe.sharding))
    graph.on_request(LoudnessStage, FrozenConfig(), audio)

    for plan in plan_graph(graph, lake, "loudness").stages.values():
        assert isinstance(plan, TablePlan)
        snapshot, _ = execute(lake, plan)
    heard, broken = sorted(lake.view(snapshot).read().to_pylist(), key=lambda row: row["reject_stage"] or "")
    assert heard["dbfs"] == pytest.approx(10 * np.log10(np.mean(voice**2)), abs=2)
    assert (broken["dbfs"], broken["reject_stage"]) == (None, "audio")


def test_an_encoder_of_ones_own_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    convolutions = {"num_conv_pos_embedding_groups": 2, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16}
    torch.manual_seed(0)
    model = transformers.UniSpeechModel(transformers.UniSpeechConfig(**sizes, **convolutions)).eval()
    model.save_pretrained(tmp_path)
    monkeypatch.setitem(FAMILIES, "unispeech", "tests.examples.unispeech:UniSpeechEncoder")

    clips = [sound("low", 3, 1.0), sound("high", 4, 1.7)]
    mine = load_encoder(tmp_path, 2)
    with torch.inference_mode():
        for clip, outputs in zip(clips, mine.outputs(clips, [1, 2]), strict=True):
            states = model(torch.from_numpy(clip)[None], output_hidden_states=True).hidden_states
            for layer in (1, 2):
                torch.testing.assert_close(outputs[layer], states[layer][0], rtol=1e-4, atol=1e-4)
    assert [len(clip[2]) for clip in mine.features(clips, [2])] == [mine.count(len(clip)) for clip in clips]


def test_a_task_of_ones_own_is_one_file_and_one_line(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plurals").mkdir()
    (tmp_path / "plurals/plurals.tsv").write_text("two cars\ttwo car\nten days\tten day\n")
    monkeypatch.setitem(READERS, "plurals.tsv", read_plurals)
    spirit = SpiritLM.from_pretrained(published, "cpu")
    report = run_suite({"tiny": lambda: spirit}, read_suite(tmp_path), SuiteConfig(bootstrap_samples=100))
    (measure,) = report["measures"]
    assert (measure["task"], measure["direction"], measure["items"]) == ("plurals", "T", 2)
    assert [figure["metric"] for figure in measure["figures"]] == ["accuracy, sum", "accuracy, mean"]
