"""A task of one's own is one file and one line: it is found, drawn, asked, judged and shown like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiritlm_core.errors import SourceError
from spiritlm_core.evaluate.config import SuiteConfig
from spiritlm_core.evaluate.suite.layouts import READERS, read_suite, read_task
from spiritlm_core.evaluate.suite.stage import run_suite, table
from spiritlm_core.lm.generate.spirit import SpiritLM
from tests.evaluate.suite.knowing import knowing
from tests.examples.evaluation_task import TABLE, read_parity

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PARITY = ("odd", "even")


@pytest.fixture
def parity(tmp_path: Path) -> Path:
    folder = tmp_path / "sets" / "parity"
    folder.mkdir(parents=True)
    lines = [f"{'test' if n < 4 else 'train'},{number},{PARITY[n % 2]}\n" for n, number in enumerate(NUMBERS)]
    (folder / TABLE).write_text("split,number,parity\n" + "".join(lines))
    return folder


def test_one_line_makes_it_a_task_of_the_suite(spirit: SpiritLM, parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="none of the known layouts"):
        read_task("parity", parity)
    monkeypatch.setitem(READERS, TABLE, read_parity)
    (task,) = read_suite(parity.parent)
    layout = spirit.layout
    answers = [layout.prompt([("text", f"Text: {n} Label: {PARITY[i % 2]}")], "any") for i, n in enumerate(NUMBERS[:4])]
    config = SuiteConfig(shots=0, bootstrap_samples=100)
    report = run_suite({"knows": lambda: knowing(spirit, answers)}, [task], config)
    (measure,) = report["measures"]
    assert (measure["items"], measure["labels"]) == (4, ["even", "odd"])
    assert {figure["metric"]: figure["value"] for figure in measure["figures"]}["accuracy, sum"] == 1
    assert "parity" in table(report).plain()
