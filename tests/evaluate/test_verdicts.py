from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import Verdict, doubt, given_labels, read_verdicts, told, write_verdicts

POOR = Verdict.of(
    "transcribe",
    "word error rate",
    Estimate(1.01, 0.94, 1.09),
    {"fixed": 1.1, "nothing": 1.0},
    on="held-out recordings",
    items=90,
    better=False,
)
GOOD = replace(POOR, value=0.4, low=0.3, high=0.5, better=True)


def test_the_best_trivial_answer_is_the_least_error_and_the_greatest_accuracy() -> None:
    assert (POOR.trivial_answer, POOR.trivial) == ("nothing", 1.0)
    chosen = Verdict.of("classify", "accuracy", Estimate(0.9, 0.8, 1), {"chance": 0.2, "majority": 0.6},
                        on="held-out recordings", items=9, better=True)  # fmt: skip
    assert (chosen.trivial_answer, chosen.trivial) == ("majority", 0.6)


@pytest.mark.parametrize(("items", "better"), [(1, False), (4, False), (5, True)])
def test_a_few_items_show_nothing(items: int, better: bool) -> None:
    one = Verdict.of("classify", "accuracy", Estimate(1, 1, 1), {"chance": 0.1}, on="clips", items=items, better=True)
    assert one.better == better


def test_a_model_that_does_no_better_than_trivial_answers_says_so_with_its_figures() -> None:
    sentence = doubt([POOR], "transcribe")
    assert sentence is not None
    for part in (
        "not shown to transcribe better",
        "101 % [94, 109]",
        "best trivial answer 100 % (empty answers)",
        "90 held-out recordings",
    ):
        assert part in sentence


def test_a_model_that_was_not_judged_or_does_better_says_nothing() -> None:
    assert doubt([], "transcribe") is None
    assert doubt([POOR], "say") is None
    assert doubt([GOOD], "transcribe") is None


def test_solved_examples_are_judged_apart_where_there_are_figures_of_both() -> None:
    both = [POOR, replace(GOOD, shots=4)]
    assert doubt(both, "transcribe") is not None
    assert doubt(both, "transcribe", shots=True) is None
    assert doubt([POOR], "transcribe", shots=True) is not None, "what there is counts"


def test_a_group_alone_does_not_clear_a_model_but_is_named() -> None:
    sentence = doubt([POOR, replace(GOOD, group="label digits")], "transcribe")
    assert sentence is not None
    assert "Better only for: label digits." in sentence
    assert doubt([GOOD, replace(POOR, group="label digits")], "transcribe") is None


def test_the_file_gives_back_what_was_written_and_passes_over_what_it_does_not_know(tmp_path: Path) -> None:
    labelled = replace(GOOD, task="classify", labels=("a", "b"), beside={"recogniser": 0.04})
    write_verdicts(tmp_path, [POOR, labelled])
    text = (tmp_path / "verdicts.json").read_text()
    (tmp_path / "verdicts.json").write_text(text.replace('"task"', '"later": 1, "task"'))
    found = read_verdicts(tmp_path)
    assert found[0] == replace(POOR, labels=[])
    assert given_labels(found) == ("a", "b")
    assert read_verdicts(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"verdicts": [{"task": "say"}]}', '{"verdicts": 3}'])
def test_a_damaged_file_is_named(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "verdicts.json").write_text(damaged)
    with pytest.raises(SpiritLMError, match=r"verdicts\.json"):
        read_verdicts(tmp_path)


def test_the_summary_says_what_was_asked() -> None:
    about = {"task": "transcribe", "measure": "word error rate", "value": 1.0, "low": 1.0, "high": 1.0, "trivial": 1.0,
             "trivial_answer": "empty", "items": 9, "better": False}  # fmt: skip
    lines = told([about | {"on": on, "shots": 0} for on in ("held-out recordings", "held-out synthetic utterances")])
    heads = [line for line in lines if line.endswith(":")]
    assert ["held-out recordings" in head for head in heads] == [True, False]
    assert "word error rate on held-out synthetic utterances" in heads[1]
