from __future__ import annotations

from itertools import pairwise

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_core.metrics.bootstrap import ratio
from spiritlm_core.metrics.distances import collapse, edit_distance, normalise, unit_errors, word_errors

units = st.lists(st.integers(0, 4), max_size=12)
sentences = st.lists(st.sampled_from(["a", "b", "cc", "d'e"]), min_size=1, max_size=8).map(" ".join)


def textbook(reference: list[int], answer: list[int]) -> int:
    """Wagner and Fischer 1974, written out."""
    row = list(range(len(answer) + 1))
    for i, wanted in enumerate(reference, 1):
        above, row[0] = row[0], i
        for j, found in enumerate(answer, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (wanted != found))
    return row[-1]


@given(units, units)
def test_edit_distance_is_the_textbook_one(reference: list[int], answer: list[int]) -> None:
    assert edit_distance(reference, answer) == textbook(reference, answer)


@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=5))
def test_word_errors_agree_with_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, answers = [r for r, _ in pairs], [a for _, a in pairs]
    assert word_errors(references, answers).rate == pytest.approx(jiwer.wer(references, answers))


@given(st.lists(st.tuples(units.filter(bool), units), min_size=1, max_size=5))
def test_unit_errors_agree_with_jiwer_on_collapsed_units(pairs: list[tuple[list[int], list[int]]]) -> None:
    references, answers = ([" ".join(map(str, collapse(p[i]))) for p in pairs] for i in (0, 1))
    assert unit_errors([r for r, _ in pairs], [a for _, a in pairs]).rate == pytest.approx(
        jiwer.wer(references, answers)
    )


@given(units)
def test_collapsing_leaves_no_runs_and_loses_no_change(stream: list[int]) -> None:
    short = collapse(stream)
    assert all(a != b for a, b in pairwise(short))
    assert collapse([unit for unit in short for _ in range(3)]) == short


def test_durations_are_no_errors() -> None:
    assert unit_errors([[1, 1, 2, 3, 3]], [[1, 2, 2, 2, 3]]).rate == 0


def test_a_reference_without_words_counts_insertions_only() -> None:
    errors = word_errors(["...", "one two"], ["three", "one two"])
    assert (errors.edits, errors.length) == ((1, 0), (0, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 5 o\u2019clock, \u201cBob\u201d!", "it's 5 o'clock bob"),
        ("L'\u00e9t\u00e9 -- \u00c7a?", "l'\u00e9t\u00e9 \u00e7a"),
        (
            "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
            "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
        ),
        ("  'quoted'  ", "quoted"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 20)), min_size=1, max_size=30), st.integers(0, 9))
def test_the_interval_is_ordered_and_within_the_documents_rates(pairs: list[tuple[float, int]], seed: int) -> None:
    top, bottom = zip(*pairs, strict=True)
    found = ratio(top, bottom, samples=200, seed=seed)
    rates = np.array(top) / np.array(bottom)
    assert found.low <= found.high
    assert rates.min() - 1e-9 <= found.low
    assert found.high <= rates.max() + 1e-9
    assert found.value == pytest.approx(sum(top) / sum(bottom))
    assert found == ratio(top, bottom, samples=200, seed=seed)


def test_the_interval_covers_the_truth_about_19_times_in_20() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        lengths = generator.integers(5, 30, size=60)
        found = ratio(generator.binomial(lengths, 0.3), lengths, samples=300, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 178 <= hits <= 199


def test_more_documents_give_a_narrower_interval() -> None:
    generator = np.random.default_rng(0)
    few, many = (ratio(generator.poisson(5, n), np.full(n, 10), samples=500, seed=0) for n in (10, 1000))
    assert (many.high - many.low) < (few.high - few.low) / 3


def test_nothing_to_divide_by_is_undefined_and_not_zero() -> None:
    assert ratio([], [], samples=100, seed=0).to_dict("x") == {"x": None, "x_low": None, "x_high": None}
    assert np.isnan(ratio([1.0], [0], samples=100, seed=0).value)


def test_in_a_language_numbers_in_figures_are_those_in_words() -> None:
    assert word_errors(["Press 25."], ["press twenty five"], "en").edits == (0,)
    assert word_errors(["nine one one"], ["nine one two"], "en") == word_errors(["9 1 1"], ["9, 1, 2"], "en")
    assert word_errors(["nine one one"], ["nine one two"], "en").length == (3,)
    assert word_errors(["Nummer 25"], ["nummer fünfundzwanzig"], "de").edits == (0,)
    assert word_errors(["press 2"], ["press two"]).edits == (1,)  # nobody says in which language
