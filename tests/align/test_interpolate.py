from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.align.interpolate import Span, fill

times = st.floats(-2, 12, allow_nan=False)
spans = st.one_of(st.none(), st.builds(Span, times, times, st.floats(0, 1)))


@given(st.lists(st.tuples(spans, st.integers(1, 12)), min_size=1, max_size=25), st.floats(0.05, 10))
def test_words_are_in_order_and_inside(words, duration):
    filled = fill([span for span, _ in words], [length for _, length in words], duration)
    assert len(filled) == len(words)
    for before, after in pairwise(filled):
        assert before.start <= after.start
        assert before.end <= after.start
    for word, (span, _) in zip(filled, words, strict=True):
        assert 0 <= word.start <= word.end <= duration
        assert word.score == (None if span is None else span.score)


@given(st.lists(st.floats(0.06, 1), min_size=2, max_size=20))
def test_good_spans_are_left_alone(steps):
    spans, now = [], 0.0
    for step in steps:
        spans.append(Span(now, now + step / 3, 0.5))
        now += step
    filled = fill(spans, [3] * len(spans), now)
    assert [word.start for word in filled] == [span.start for span in spans]
    for word, span, step in zip(filled, spans, steps, strict=True):
        assert word.end == span.end or (step * 2 / 3 <= 0.041 and word.end == pytest.approx(span.start + step))


def edges(filled):
    return [pytest.approx((word.start, word.end)) for word in filled]


def test_untimed_words_share_the_gap_by_length():
    filled = fill([Span(0, 1, 0.9), None, None, Span(4, 5, 0.8)], [3, 1, 2, 3], 6)
    assert edges(filled) == [(0, 1), (1, 2), (2, 4), (4, 5)]
    assert [w.score for w in filled] == [0.9, None, None, 0.8]


def test_without_a_gap_the_word_before_shares_its_time():
    filled = fill([Span(0, 1, 0.9), None, Span(1, 2, 0.8)], [5, 5, 5], 2)
    assert edges(filled) == [(0, 0.5), (0.5, 1), (1, 2)]


def test_at_the_start_the_word_after_shares_its_time():
    filled = fill([None, Span(0, 1, 0.9), Span(1, 2, 0.8)], [5, 5, 5], 2)
    assert edges(filled) == [(0, 0.5), (0.5, 1), (1, 2)]


def test_nothing_timed_at_all_is_split_by_length():
    assert edges(fill([None, None], [1, 3], 2)) == [(0, 0.5), (0.5, 2)]


def test_a_gap_of_two_frames_is_no_pause_but_a_longer_one_is():
    assert fill([Span(0, 0.96, 1), Span(1, 2, 1)], [1, 1], 2)[0].end == 1
    assert fill([Span(0, 0.9, 1), Span(1, 2, 1)], [1, 1], 2)[0].end == 0.9
