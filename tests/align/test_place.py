from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.align.interpolate import place
from spiritlm_core.tokens.words import words_of

TEXT = (
    "the birch canoe slid on the smooth planks glue the sheet to the dark blue background it is easy to tell the "
    "depth of a well these days a chicken leg is a rare dish rice is often served in round bowls the juice of "
    "lemons makes fine punch the box was thrown beside the parked truck the hogs were fed chopped corn and garbage"
)


def cut(words: list[str], sizes: list[int]) -> list[list[str]]:
    edges = np.cumsum([0, *sizes])
    return [words[a:b] for a, b in pairwise(edges)]


SECONDS = [4.0, 3.5, 5.5, 8.0, 6.0]


def written(placed):
    return [[word.written for word in words] for words in placed]


def test_a_perfect_reading_gives_back_the_cut():
    parts = cut(TEXT.split(), [10, 9, 14, 20, 13])
    parts[-1] = TEXT.split()[53:]
    assert written(place(words_of(TEXT, "en"), ["".join(part) for part in parts], SECONDS)) == parts


def test_a_bad_reading_misplaces_few_words():
    random = np.random.default_rng(0)
    parts = cut(TEXT.split(), [10, 9, 14, 20, len(TEXT.split()) - 53])
    letters = "abcdefghijklmnopqrstuvwxyz"
    readings = []
    for part in parts:
        kept = [c for c in "".join(part) if random.random() > 0.35]
        readings.append("".join(random.choice(list(letters)) if random.random() < 0.25 else c for c in kept))
    wrong = sum(
        abs(len(got) - len(true))
        for got, true in zip(place(words_of(TEXT, "en"), readings, SECONDS), parts, strict=True)
    )
    assert wrong <= 6


def test_a_word_that_nobody_heard_goes_with_its_neighbours():
    placed = place(words_of("one two three 999999999 four five six", "en"), ["onetwothree", "fourfivesix"], [1.0, 1.0])
    assert "one" in written(placed)[0]
    assert written(placed)[1][-3:] == ["four", "five", "six"]


def test_speech_that_is_not_in_the_transcript_takes_no_words():
    placed = place(
        words_of("the birch canoe slid on the smooth planks", "en"),
        ["thebirchcanoe", "zzqqxxkkvvzzqqxx", "slidonthesmoothplanks"],
        [1.0, 1.5, 1.5],
    )
    assert [len(part) for part in placed] == [3, 0, 5]


def test_without_any_reading_time_decides():
    placed = place(words_of("aaaa bbbb cccc dddd", "en"), ["", "", ""], [1.0, 2.0, 1.0])
    assert written(placed) == [["aaaa"], ["bbbb", "cccc"], ["dddd"]]


@given(
    st.lists(st.text("abcde ", max_size=8), max_size=12).map(" ".join),
    st.lists(st.text("abcde", max_size=20), min_size=1, max_size=6),
)
def test_all_words_are_placed_in_order(text, readings):
    words = words_of(text, "en")
    placed = place(words, readings, [1.0] * len(readings))
    assert len(placed) == len(readings)
    assert [word for part in placed for word in part] == words


def test_a_recording_of_forty_minutes_is_placed_in_seconds():
    random = np.random.default_rng(1)
    vocabulary = TEXT.split()
    words = [vocabulary[i] for i in random.integers(0, len(vocabulary), 6000)]
    parts = cut(words, [60] * 100)
    readings = ["".join(c for c in "".join(part) if random.random() > 0.3) for part in parts]
    placed = written(place(words_of(" ".join(words), "en"), readings, [20.0] * 100))
    assert sum(abs(len(got) - 60) for got in placed) < 100
