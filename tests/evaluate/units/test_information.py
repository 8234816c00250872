"""Purity and mutual information of units and phones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.evaluate.units.labels import agreement, scores


def _random(seed, clips=60, length=80, classes=8):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, classes, length) for _ in range(clips)]


def test_a_hand_computed_table():
    # unit 0: phone 0 three times, phone 1 once; unit 1: phone 1 four times
    pnmi, phone_purity, cluster_purity = (float(x[0]) for x in scores(np.array([[[3.0, 1.0], [0.0, 4.0]]])))
    assert phone_purity == pytest.approx(7 / 8)
    assert cluster_purity == pytest.approx(7 / 8)
    entropy = -(3 / 8 * np.log(3 / 8) + 5 / 8 * np.log(5 / 8))
    conditional = 0.5 * -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert pnmi == pytest.approx((entropy - conditional) / entropy)


def test_a_tokenizer_that_sees_the_phones_scores_one_and_random_units_nothing():
    phones = _random(0)
    table = np.array([5, 3, 7, 0, 1, 6, 2, 4])
    perfect = agreement([table[clip] for clip in phones], phones, samples=200)
    assert perfect["pnmi"] == pytest.approx(1.0)
    assert perfect["phone_purity"] == pytest.approx(1.0)
    assert perfect["cluster_purity"] == pytest.approx(1.0)
    assert perfect["pnmi_chance"] < 0.02
    random = agreement(_random(1, classes=100), phones, samples=200)
    assert random["pnmi"] < 0.1
    assert random["pnmi"] == pytest.approx(
        random["pnmi_chance"], abs=0.01
    )  # what is there is the bias of a small sample


def test_finer_units_keep_purity_of_phones_and_lose_that_of_clusters():
    phones = _random(0)
    halves = [2 * clip + (np.arange(len(clip)) % 2) for clip in phones]
    found = agreement(halves, phones, samples=100)
    assert found["pnmi"] == pytest.approx(1.0)
    assert found["phone_purity"] == pytest.approx(1.0)
    assert found["cluster_purity"] == pytest.approx(0.5, abs=0.03)


def test_frames_without_a_phone_do_not_count():
    phones = [np.array([0, 1, -1, -1])]
    found = agreement([np.array([4, 2, 2, 4])], phones, samples=100)
    assert found["frames"] == 2
    assert found["pnmi"] == pytest.approx(1.0)


def test_one_phone_only_is_no_division_by_zero():
    assert agreement([np.array([0, 1, 2])], [np.zeros(3, np.int64)], samples=100)["pnmi"] == 0.0


def test_lengths_that_differ_and_no_phones_are_errors():
    with pytest.raises(ValueError, match="lengths"):
        agreement([np.zeros(3, np.int64)], [np.zeros(2, np.int64)])
    with pytest.raises(ValueError, match="no frame"):
        agreement([np.zeros(2, np.int64)], [np.full(2, -1)])


def test_the_interval_holds_the_value_and_narrows_with_more_clips():
    def width(clips):
        phones = _random(0, clips)
        noise = np.random.default_rng(3)
        units = [np.where(noise.random(len(clip)) < noise.random(), clip, 0) for clip in phones]
        found = agreement(units, phones, samples=400, seed=1)
        low, high = found["pnmi_low"], found["pnmi_high"]
        assert low < found["pnmi"] < high
        return high - low

    assert width(400) < 0.7 * width(40)


def test_the_same_seed_draws_the_same_clips_for_every_tokenizer():
    phones = _random(0)
    a = agreement(phones, phones, samples=100, seed=5)
    noisy = [np.where(np.arange(len(c)) % 3 == 0, 0, c) for c in phones]
    first, again = (agreement(noisy, phones, samples=100, seed=5) for _ in range(2))
    assert first["draws"] == again["draws"]
    assert len(a["draws"]) == len(first["draws"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=2, max_size=60), st.permutations(range(6)))
def test_names_of_units_do_not_matter_and_all_is_between_zero_and_one(pairs, names):
    units, phones = (np.array(column) for column in zip(*pairs, strict=True))
    first = agreement([units], [phones], samples=100)
    second = agreement([np.array(names)[units]], [phones], samples=100)
    assert first["pnmi"] == pytest.approx(second["pnmi"], abs=1.1e-5)
    assert 0 <= first["pnmi"] <= 1
    assert 0 < first["cluster_purity"] <= 1
    assert np.bincount(phones).max() / len(phones) <= first["phone_purity"] + 1e-5
