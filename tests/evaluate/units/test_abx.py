"""ABX against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.evaluate.units.abx import (
    Cell,
    Task,
    Token,
    angular,
    error_rates,
    make_task,
    pair_distances,
    unequal,
    warp,
)
from spiritlm_core.evaluate.units.labels import SILENCE, Labels, Phone


def _warp(matrix):
    matrix = np.array([matrix], float)
    return float(warp(matrix, np.array([matrix.shape[1]]), np.array([matrix.shape[2]]))[0])


def test_warping_worked_out_by_hand():
    assert _warp([[0, 1], [1, 0]]) == 0.0
    # the cheapest path 2, 1, 1, 3 costs 7 over four cells; the diagonal one 2, 4, 3 costs 9
    assert _warp([[2, 9, 9], [1, 4, 9], [9, 1, 3]]) == pytest.approx(7 / 4)
    # 0.5, 1 and 0.5, 0, 1 cost the same: the shorter one counts, else it would be 1.5 / 3
    assert _warp([[0.5, 9], [0, 1]]) == pytest.approx(1.5 / 2)


def test_a_longer_copy_of_the_same_units_is_at_distance_zero():
    sequences = [np.array([1, 2, 3]), np.array([1, 1, 1, 2, 3, 3]), np.array([1, 9, 3])]
    found = pair_distances(sequences, np.array([[0, 1], [0, 2], [1, 2]]), unequal)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(1 / 3)
    assert 0 < found[2] < found[1]  # one of six cells


def _reference(a, b):
    """The textbook algorithm, one pair at a time: cost and cells of the best path."""
    n, m = len(a), len(b)
    best = {}
    for i in range(n):
        for j in range(m):
            here = float(a[i] != b[j])
            before = [best[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in best]
            cost, cells = min(before, default=(0.0, 0))
            best[i, j] = (cost + here, cells + 1)
    cost, cells = best[n - 1, m - 1]
    return cost / cells


_SEQUENCE = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@given(st.lists(st.tuples(_SEQUENCE, _SEQUENCE), min_size=1, max_size=8))
def test_many_pairs_at_once_equal_one_at_a_time(pairs):
    sequences = [np.array(sequence) for pair in pairs for sequence in pair]
    index = np.arange(len(sequences)).reshape(-1, 2)
    found = pair_distances(sequences, index, unequal)
    assert found == pytest.approx([_reference(a, b) for a, b in pairs])
    assert found == pytest.approx(pair_distances(sequences, index[:, ::-1], unequal))


def test_angles():
    vectors = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)
    found = angular(vectors, np.array([[[1.0, 0.0], [-1.0, 0.0]]], np.float32))
    assert found == pytest.approx(np.array([[[0.0, 1.0], [0.5, 0.5]]]))


def _task(cells):
    """Four tokens of one frame in one clip: two of phone A, one of B, one of A by another speaker."""
    names = [("A", "s"), ("A", "s"), ("B", "s"), ("A", "t")]
    tokens = [Token(phone, ("x", "y"), speaker, "clip", i, i + 1) for i, (phone, speaker) in enumerate(names)]
    return Task(tuple(tokens), cells)


WITHIN = Cell(("A", "B"), "s", (0, 1), (2,), (0, 1))
ACROSS = Cell(("A", "B"), "s", (0, 1), (2,), (3,))


def test_triples_worked_out_by_hand():
    task = _task({"within": (WITHIN,), "across": (ACROSS,)})
    # equal units of A, another for B: no error within; X of the other speaker has B's unit: always wrong across
    assert error_rates(task, {"clip": np.array([5, 5, 7, 7])}, unequal) == {"within": 0.0, "across": 1.0}
    # A's two units differ: X=0 has d(a)=1 and d(b)=1, a tie; X=1 equals B: an error. (0.5 + 1) / 2
    assert error_rates(task, {"clip": np.array([5, 7, 7, 5])}, unequal)["within"] == 0.75
    # across: against a=0, whose unit it has, X is right; against a=1 both are at distance 1, a tie: (0 + 0.5) / 2
    assert error_rates(task, {"clip": np.array([5, 7, 7, 5])}, unequal)["across"] == 0.25


def test_each_pair_of_phones_weighs_the_same():
    """Three cells of one pair with error 0 in one speaker, one with error 1 in another speaker, and a pair with 1."""
    tokens = [Token("A", ("x", "y"), "s", "clip", i, i + 1) for i in range(3)]
    good, bad = (0, 1), (0, 2)
    easy = [Cell(("A", "B"), "s", good, (2,), good)] * 3
    wrong = [Cell(("A", "B"), "t", bad, (1,), bad), Cell(("A", "C"), "s", bad, (1,), bad)]
    rates = error_rates(Task(tuple(tokens), {"within": (*easy, *wrong)}), {"clip": np.array([1, 1, 2])}, unequal)
    # in `wrong`, X=0 errs (b has its unit, a not) and X=2 ties: 0.75
    assert rates["within"] == pytest.approx(((0 + 0.75) / 2 + 0.75) / 2)


def _clips(seed=0, words=40):
    """Two speakers saying x A y and x B y at random, 120 ms a phone."""
    rng, clips, phones = np.random.default_rng(seed), [], {}
    for speaker in "st":
        names = [name for _ in range(words) for name in ("x", rng.choice(["A", "B"]), "y", SILENCE)]
        phones[speaker] = [Phone(name, 12 * i, 12 * i + 12) for i, name in enumerate(names)]
        clips.append(Clip(speaker, speaker, "en", "", np.zeros(1920 * len(names), np.float32)))
    return clips, Labels(phones)


def _units_of(clips, labels, unit):
    from spiritlm_core.evaluate.units.labels import classes_of, phones_of_units

    classes = classes_of(labels)
    return {c.key: unit(phones_of_units(labels.phones[c.key], len(c.waveform), classes), c.speaker) for c in clips}


def test_units_that_are_the_phones_are_perfect_and_random_ones_at_chance():
    clips, labels = _clips()
    task = make_task(clips, labels, most_cells=100, most_tokens=20, seed=0)
    assert {token.phone for token in task.tokens} == {"A", "B"}
    assert len(task.cells["within"]) == len(task.cells["across"]) == 4  # two ordered pairs, two speakers
    perfect = _units_of(clips, labels, lambda phones, _: phones)
    assert error_rates(task, perfect, unequal) == {"within": 0.0, "across": 0.0}
    rng = np.random.default_rng(1)
    random = _units_of(clips, labels, lambda phones, _: rng.integers(0, 50, len(phones)))
    for rate in error_rates(task, random, unequal).values():
        assert rate == pytest.approx(0.5, abs=0.1)


def test_units_that_differ_by_speaker_are_good_within_and_useless_across():
    clips, labels = _clips()
    task = make_task(clips, labels, most_cells=100, most_tokens=20, seed=0)
    private = _units_of(clips, labels, lambda phones, speaker: phones + 10 * (speaker == "t"))
    assert error_rates(task, private, unequal) == {"within": 0.0, "across": pytest.approx(0.5)}


def test_drawing_is_bounded_and_repeatable():
    clips, labels = _clips()
    few = make_task(clips, labels, most_cells=2, most_tokens=3, seed=4)
    assert few == make_task(clips, labels, most_cells=2, most_tokens=3, seed=4)
    assert len(few.cells["within"]) == len(few.cells["across"]) == 2
    assert len(few.tokens) == 12  # two phones, two speakers, three each
    assert error_rates(make_task(clips[:1], Labels(), most_cells=2, most_tokens=2, seed=0), {}, unequal) == {
        "within": None,
        "across": None,
    }
