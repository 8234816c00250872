from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.evaluate.suite.layouts import read_task
from spiritlm_core.evaluate.suite.pairs import DIRECTIONS
from spiritlm_core.evaluate.suite.stage import page, run_suite, table, verdicts
from spiritlm_core.evaluate.suite.task import Recordings, figure
from spiritlm_core.evaluate.suite.zeroshot import preferred, score
from spiritlm_core.lm.generate import fewshot
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.bootstrap import Estimate
from tests.evaluate.suite.stories import write_pairs

CONFIG = SuiteConfig(bootstrap_samples=500)
ALL = ["T", "S", "T→S", "S→T"]


class Rigged(nn.Module):
    """Knows the good sides by heart: behind what it sees of one, that one's next token has nearly all probability."""

    def __init__(self, right: list[list[int]], rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.next = defaultdict(set)
        for known in right:
            for i in range(1, len(known)):
                self.next[*known[:i]].add(known[i])
        self.rows = rows
        self.config = SimpleNamespace(max_position_embeddings=256)

    def get_output_embeddings(self) -> nn.Module:
        return self

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, self.rows)
        for row, ids in enumerate(input_ids):
            for place, seen in enumerate(attention_mask[row, 0] == 0):
                logits[row, place, [*self.next.get((*ids[seen].tolist(),), ())]] = 20.0
        return SimpleNamespace(logits=logits)


def _right(spirit: SpiritLM, folder: Path) -> list[list[int]]:
    """The ids of every prefix with its good side, in all directions."""
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    forms = {"text": "text", "speech": "audio"}
    return [
        spirit.layout.prompt([(p, row["prefix"][forms[p]]), (s, row["good"][forms[s]])], "any")
        for row in rows
        for p in forms
        for s in forms
    ]


def test_a_random_model_is_at_chance_within_its_own_interval(spirit: SpiritLM, stories: Path) -> None:
    report = run_suite({"random": lambda: spirit}, read_task("stories", stories), CONFIG)
    assert [measure["direction"] for measure in report["measures"]] == ALL
    for measure in report["measures"]:
        assert measure["items"] == measure["pairs"] == 150
        assert measure["skipped"] == []
        assert measure["chance"] == 0.5
        for name in ("sum", "mean"):
            assert measure[f"{name}_low"] <= 0.5 <= measure[f"{name}_high"], (measure["direction"], name)
            assert 0.05 < measure[f"{name}_high"] - measure[f"{name}_low"] < 0.25


def test_a_model_that_sees_the_answer_is_always_right(spirit: SpiritLM, stories: Path) -> None:
    model = Rigged(_right(spirit, stories), spirit.vocabulary.size)
    rigged = SpiritLM(model, spirit.layout)  # type: ignore[arg-type]
    report = run_suite({"rigged": lambda: rigged}, read_task("stories", stories), CONFIG)
    found = {
        measure["direction"]: (measure["sum"], measure["mean"], measure["sum_low"]) for measure in report["measures"]
    }
    assert found == dict.fromkeys(ALL, (1.0, 1.0, 1.0))


def test_a_model_that_sees_the_wrong_answer_is_never_right(spirit: SpiritLM, stories: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (stories / "pairs.jsonl").read_text().splitlines()][:20]
    swapped = write_pairs(tmp_path / "swapped", [{**row, "good": row["bad"], "bad": row["good"]} for row in rows])
    model = Rigged(_right(spirit, stories), spirit.vocabulary.size)
    rigged = SpiritLM(model, spirit.layout)  # type: ignore[arg-type]
    report = run_suite({"rigged": lambda: rigged}, read_task("swapped", swapped), CONFIG)
    assert [measure["sum"] for measure in report["measures"]] == [0.0] * 4


def test_the_batch_changes_nothing(spirit: SpiritLM, stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = read_task("stories", stories)
    for direction in DIRECTIONS:
        many = score(spirit, task.pairs[:30], direction, Recordings())
        monkeypatch.setattr(fewshot, "_LOGITS_AT_ONCE", 1)
        one = score(spirit, task.pairs[:30], direction, Recordings())
        monkeypatch.undo()
        np.testing.assert_allclose(one.sums, many.sums, rtol=1e-5)
        np.testing.assert_array_equal(preferred(one.means), preferred(many.means))
        np.testing.assert_array_equal(one.tokens, many.tokens)


def test_scores_are_those_of_the_model(spirit: SpiritLM, stories: Path) -> None:
    (task,) = read_task("stories", stories)
    pair = task.pairs[0]
    assert pair.prefix is not None
    found = score(spirit, [pair], DIRECTIONS[3], Recordings())
    prompt = spirit.layout.prompt([("speech", str(pair.prefix.tokens))], "text")
    whole = spirit.layout.prompt([("speech", str(pair.prefix.tokens)), ("text", str(pair.good.text))], "any")
    with torch.inference_mode():
        logits = spirit.model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    expected = sum(float(logits[i - 1, whole[i]]) for i in range(len(prompt), len(whole)))
    assert found.sums[0, 0] == pytest.approx(expected, rel=1e-4)
    assert found.tokens[0, 0] == len(whole) - len(prompt)


def test_equal_sides_tie_and_count_half(spirit: SpiritLM, tmp_path: Path) -> None:
    same = {"good": {"text": "one two"}, "bad": {"text": "one  two"}}
    folder = write_pairs(tmp_path / "same", [same, same])
    (measure,) = run_suite({"m": lambda: spirit}, read_task("same", folder), CONFIG)["measures"]
    assert (measure["sum"], measure["mean"], measure["shorter"]) == (0.5, 0.5, 0.5)
    assert measure["ties"] == {"sum": 2, "mean": 2}
    assert measure["direction"] == "T"


@given(st.lists(st.tuples(st.floats(-1e3, -1e-3), st.floats(-1e3, -1e-3)), min_size=1))
def test_preferring_one_is_not_preferring_the_other(pairs: list[tuple[float, float]]) -> None:
    values = np.array(pairs)
    np.testing.assert_array_equal(preferred(values) + preferred(values[:, ::-1]), 1)


def test_voices_of_an_item_are_averaged_and_the_limit_draws_items(
    spirit: SpiritLM, stories: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (stories / "pairs.jsonl").read_text().splitlines()][:30]
    folder = write_pairs(tmp_path / "voices", [{**row, "item": str(n // 3)} for n, row in enumerate(rows)])
    task = read_task("voices", folder)
    every = run_suite({"m": lambda: spirit}, task, CONFIG)["measures"][0]
    assert (every["items"], every["pairs"]) == (10, 30)
    few = [run_suite({"m": lambda: spirit}, task, SuiteConfig(limit=4, seed=seed))["measures"][0] for seed in (0, 0, 1)]
    assert (few[0]["items"], few[0]["pairs"]) == (4, 12)
    assert few[0] == few[1]
    assert task[0].drawn(4, 0).pairs != task[0].drawn(4, 1).pairs
    assert set(every["kinds"]) == {"even", "odd"}


def test_what_cannot_be_scored_is_skipped_with_a_reason(spirit: SpiritLM, stories: Path, tmp_path: Path) -> None:
    good = json.loads((stories / "pairs.jsonl").read_text().splitlines()[0])
    long = {"id": "long", "good": {"text": "one " * 300}, "bad": {"text": "two"}}
    empty = {"id": "empty", "good": {"text": " "}, "bad": {"text": "two"}}
    strange = {"id": "strange", "good": {"audio": "[Hu9999]"}, "bad": {"audio": "[Hu1]"}}
    folder = write_pairs(tmp_path / "odd", [good, long, empty, strange, "no json", '{"good": 1}'])
    measures = run_suite({"m": lambda: spirit}, read_task("odd", folder), CONFIG)["measures"]
    reasons = {one["pair"]: one["reason"] for one in measures[0]["skipped"]}
    assert set(reasons) == {"pairs.jsonl:5", "pairs.jsonl:6", "long", "empty", "strange"}
    assert "context" in reasons["long"]
    assert "no tokens" in reasons["empty"]
    assert "not JSON" in reasons["pairs.jsonl:5"]
    assert "'[Hu9999]'" in {one["pair"]: one["reason"] for one in measures[1]["skipped"]}["strange"]
    assert [measure["pairs"] for measure in measures] == [1, 1, 1, 1]


def test_nothing_to_score_is_one_message(spirit: SpiritLM, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "bad", ["nonsense"])
    with pytest.raises(SpiritLMError, match="nothing of any task can be scored.*line 1"):
        run_suite({"m": lambda: spirit}, read_task("bad", folder), CONFIG)
    with pytest.raises(SpiritLMError, match="same name"):
        run_suite({"m": lambda: spirit}, [*read_task("a", folder), *read_task("a", folder)], CONFIG)


def test_models_are_compared_in_one_table_and_on_one_page(spirit: SpiritLM, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    rows = [
        {"id": hostile, "good": {"text": ""}, "bad": {"text": "a"}},
        {"good": {"text": "b"}, "bad": {"text": "a c"}},
    ]
    folder = write_pairs(tmp_path / "mine", rows)
    report = run_suite({"one": lambda: spirit, hostile: lambda: spirit}, read_task("mine", folder), CONFIG)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    heading, *lines = table(report).plain().splitlines()
    assert heading.split()[:4] == ["task", "model", "figure", "value"]
    assert [line.split()[:5] for line in lines[:2]] == [
        ["mine", "T", "one", "accuracy,", name] for name in ("sum", "mean")
    ]
    assert hostile in lines[2]
    assert lines[5] == "mine, one: not shown to be better than chance (T)."
    assert lines[6].startswith(f"mine, {hostile}: ")
    assert len(lines) == 9
    drawn = page(report)
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn
    assert page(report) == drawn


@pytest.mark.parametrize(
    ("estimate", "beside", "beats"),
    [
        (Estimate(0.8, 0.6, 0.9), {"chance": 0.5, "trivial": {"shorter": 0.55}}, True),
        (Estimate(0.8, 0.6, 0.9), {"chance": 0.5, "trivial": {"shorter": 0.7}}, False),
        (Estimate(0.8, 0.6, 0.9), {"chance": 0.65}, False),
        (Estimate(0.5, 0.4, 0.6), {"trivial": {"nothing": 1.0, "other": 0.7}, "lower": True}, True),
        (Estimate(0.5, 0.4, 0.8), {"trivial": {"nothing": 1.0, "other": 0.7}, "lower": True}, False),
        (Estimate(0.8, 0.6, 0.9), {}, None),
        (Estimate(float("nan"), float("nan"), float("nan")), {"chance": 0.5}, None),
    ],
)
def test_better_than_chance_is_an_interval_beyond_chance_and_every_trivial_answer(
    estimate: Estimate, beside: dict, beats: bool | None
) -> None:
    assert figure("m", estimate, **beside)["beats_trivial"] is beats


def test_each_task_has_one_verdict_line_and_its_rows_are_folded() -> None:
    good, poor = (figure("accuracy", Estimate(value, value - 0.1, 1), chance=0.5) for value in (0.9, 0.5))
    measures = [
        {"task": "words", "model": "m", "direction": way, "items": 4, "figures": figures, "kinds": {}, "skipped": []}
        for way, figures in (("T", [good, poor]), ("S", [poor]), ("T→S", []))
    ]
    ((title, found, ways),) = verdicts(measures)
    assert (title, len(ways)) == ("words", 3)
    assert found == {"better than chance": "T", "not measured": "T→S", "not shown to be better than chance": "S"}
    settings = {"limit": None, "seed": 0, "bootstrap_samples": 100}
    drawn = page({"settings": settings, "measures": measures, "tasks": []})
    places = [drawn.index(part) for part in ("better than chance</span>: T", "<details><summary>Figures", "80.0-100.0")]
    assert places == sorted(places)
    assert "T is text, S is speech" in drawn
