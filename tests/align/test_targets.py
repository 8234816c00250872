import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.align.teacher import BLANK, BOUNDARY, Taught, characters_of, labels_of, spikes_of

DICTIONARY = {BLANK: 0, BOUNDARY: 1, "a": 2, "b": 3, "c": 4}


def test_characters_are_sorted_and_rare_ones_left_out():
    assert characters_of([["ab", "ba"], ["abz"]], least=2) == (BLANK, BOUNDARY, "a", "b")


def test_labels_end_every_word_with_a_boundary_and_skip_the_unknown():
    assert labels_of(["ab", "cx"], DICTIONARY).tolist() == [2, 3, 1, 4, 1]


def test_spikes_are_at_the_starts_of_sounds_and_the_ends_of_words():
    times = [Taught(0.10, 0.30, (0.10, 0.20)), Taught(0.60, 0.80, (0.60,))]
    spikes = spikes_of(["ab", "c"], times, 50, DICTIONARY)
    assert {int(frame): int(spikes[frame]) for frame in np.flatnonzero(spikes)} == {5: 2, 10: 3, 15: 1, 30: 4, 40: 1}


def test_a_crowded_word_keeps_the_next_word_in_its_place():
    times = [Taught(0.10, 0.16, (0.10,)), Taught(0.16, 0.40, (0.16,))]
    spikes = spikes_of(["abc", "b"], times, 50, DICTIONARY)
    assert spikes[8] == 3
    assert spikes[20] == 1


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=6), st.floats(0.2, 1), st.floats(0, 1)), max_size=8))
def test_every_label_gets_its_own_frame_in_order_if_there_is_time(words):
    times, now = [], 0.0
    for _, length, pause in words:
        times.append(Taught(now, now + length, (now, now + length / 2)))
        now += length + pause
    texts = [text for text, _, _ in words]
    spikes = spikes_of(texts, times, round(now * 50) + 10, DICTIONARY)
    assert spikes[spikes != 0].tolist() == labels_of(texts, DICTIONARY).tolist()
    if words:
        assert np.flatnonzero(spikes)[0] == 0
