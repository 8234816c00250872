import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.tokens.words import spell, spell_ordinal, words_of


def spoken(text: str, language: str = "en") -> list[str]:
    return [" ".join(word.spoken) for word in words_of(text, language)]


def test_the_written_word_keeps_case_and_punctuation():
    words = words_of("Call-Forward: don\u2019t hang up!", "en")
    assert [word.written for word in words] == ["Call-Forward:", "don\u2019t", "hang", "up!"]
    assert [word.spoken for word in words] == [("call", "forward"), ("don't",), ("hang",), ("up",)]


def test_what_is_not_said_is_no_word():
    assert [w.written for w in words_of("[beep] hello - <noise> ... world [loud bang] —", "en")] == ["hello", "world"]
    assert words_of("[this is a simple beep tone]", "en") == []
    assert words_of(" \n\t", "en") == []


@pytest.mark.parametrize(
    "text",
    [
        "I <3 you so much -> yes",
        "five < six and seven > two",
        "five < six > two",
        "see [1 or 2, I forget which] there",
        "put it [over there] please",
        "say [Speech] now [Hu12] [Text]",
        "a > b <c d> e",
        "noise < sound and music > silence",
        "th[is]- is ((foo)) bar",
        "call me (maybe) at (555) 1234",
        "{x} <-> [B]",
    ],
)
def test_signs_and_brackets_around_words_swallow_none(text):
    assert [word.written for word in words_of(text, "en")] == text.split()


@pytest.mark.parametrize(
    "mark",
    [
        "<noise>", "<COMMA>", "<unk>", "<NON/>", "<b_aside>", "<s>", "</s>", "<loud bang>", "{LG}", "{breath}",
        "[NOISE]", "[laughter]", "[vocalized-noise]", "[ Laughter ]", "[upbeat music]", "[Applause and cheers]",
        "(cough)", "(Laughter)", "(( ))",
    ],
)  # fmt: skip
def test_marks_of_noise_are_no_words(mark):
    assert [word.written for word in words_of(f"{mark} hello {mark} world {mark}", "en")] == ["hello", "world"]


def test_tags_of_subtitles_are_no_words():
    assert [word.written for word in words_of("<i>hello</i> <b>big world</b>", "en")] == ["hello", "big", "world"]


def test_digits_and_symbols_are_spelt():
    text = "press * or # 162 28.8 007 1,234,567 $5 50% 3D 21st 1984"
    assert spoken(text) == [
        "press", "star", "or", "pound", "one hundred sixty two", "twenty eight point eight", "zero zero seven",
        "one two three four five six seven", "five dollars", "fifty percent", "three d", "twenty first",
        "nineteen eighty four",
    ]  # fmt: skip


def test_letters_of_other_languages_stay():
    assert spoken("¿Qué año? Él", "es") == ["qué", "año", "él"]
    assert spoken("l'hôtel, où ÇA", "fr") == ["l'hôtel", "où", "ça"]
    assert spoken("Ещё раз: ЁЛКА", "ru") == ["ещё", "раз", "ёлка"]
    assert spoken("नमस्ते दुनिया", "hi") == ["नमस्ते", "दुनिया"]


def test_decomposed_and_composed_text_are_the_same():
    assert words_of(unicodedata.normalize("NFD", "él está"), "es") == words_of("él está", "es")


def test_an_unknown_symbol_or_number_is_kept_for_interpolation():
    assert spoken("a ☃ b") == ["a", "☃", "b"]
    assert spoken("tisa 12", "sw") == ["tisa", "12"]


@pytest.mark.parametrize(
    ("number", "language", "words"),
    [
        ("0", "en", "zero"),
        ("100000", "en", "one hundred thousand"),
        ("2007", "en", "two thousand seven"),
        ("1905", "en", "nineteen oh five"),
        ("21", "es", "veintiuno"),
        ("345", "es", "trescientos cuarenta y cinco"),
        ("100", "es", "cien"),
        ("1001", "es", "mil uno"),
        ("21", "fr", "vingt et un"),
        ("71", "fr", "soixante et onze"),
        ("81", "fr", "quatre vingt un"),
        ("97", "fr", "quatre vingt dix sept"),
        ("200", "fr", "deux cents"),
        ("28", "it", "ventotto"),
        ("2345", "it", "duemilatrecentoquarantacinque"),
        ("21", "ru", "двадцать один"),
        ("2000", "ru", "две тысячи"),
        ("11000", "ru", "одиннадцать тысяч"),
        ("28.8", "it", "ventotto virgola otto"),
        ("28.50", "en", "twenty eight point five zero"),
        ("12", "de", "zwölf"),
        ("1905", "pt", "mil novecentos e cinco"),
        ("21001", "ru", "двадцать одна тысяча один"),
    ],
)
def test_cardinals(number, language, words):
    assert " ".join(spell(number, language)) == words


def test_ordinals():
    assert [" ".join(spell_ordinal(n)) for n in ("1", "12", "20", "22", "103")] == [
        "first", "twelfth", "twentieth", "twenty second", "one hundred third",
    ]  # fmt: skip


@given(st.integers(0, 999_999), st.sampled_from(["en", "es", "fr", "it", "ru", "de", "pt", "nl", "pl"]))
def test_every_number_below_a_million_is_spelt_with_letters(number, language):
    words = spell(str(number), language)
    assert words
    assert all(word.isalpha() for word in words)


@given(st.text(max_size=60), st.sampled_from(["en", "ru", "ja"]))
def test_words_of_any_text(text, language):
    for word in words_of(text, language):
        assert word.spoken
        assert not any(character.isspace() for character in word.written)
        assert all(part and not any(c.isspace() for c in part) for part in word.spoken)


@given(st.text(max_size=60))
def test_splitting_is_stable(text):
    written = " ".join(word.written for word in words_of(text, "en"))
    assert " ".join(word.written for word in words_of(written, "en")) == written
