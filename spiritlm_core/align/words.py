"""A transcript as words: the written form for the text stream, the spoken form for the aligner.

``"Dial 500 [beep], then #."`` becomes ``Dial | 500 | then | #.`` with the spoken forms ``dial``,
``five hundred``, ``then`` and ``pound``. What is never said (marks of noise, dashes on
their own) is no word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from spiritlm_core.align.noise import without_noise
from spiritlm_core.align.numbers import spell, spell_ordinal
from spiritlm_core.language import main_code

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'"})  # noqa: RUF001 - that is the point
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PARTS = re.compile(
    r"(?P<ordinal>\d+(?:st|nd|rd|th)\b)|(?P<number>\d+(?:[.,]\d+)?)"
    r"|(?P<letters>[^\W\d_]+(?:'[^\W\d_]+)*)|(?P<symbol>\S)"
)
_DOTTED = re.compile(r"(?<=[^\W\d_])\.(?=[^\W\d_])")
_CURRENCY = re.compile(r"([$€£])\s*(\d[\d.,]*\d|\d)")

_SIGNS = "% & @ # * + = $ €".split(" ")  # noqa: SIM905 - reads better
_SIGN_NAMES = {
    "en": "percent, and, at, pound, star, plus, equals, dollars, euros",
    "es": "por ciento, y, arroba, almohadilla, asterisco, más, igual, dólares, euros",
    "fr": "pour cent, et, arobase, dièse, étoile, plus, égale, dollars, euros",
    "it": "per cento, e, chiocciola, cancelletto, asterisco, più, uguale, dollari, euro",
    "ru": "процентов, и, собака, решётка, звёздочка, плюс, равно, долларов, евро",
}
_SYMBOLS = {language: dict(zip(_SIGNS, names.split(", "), strict=True)) for language, names in _SIGN_NAMES.items()}


@dataclass(frozen=True)
class Word:
    """One word of a transcript.

    Attributes:
        written: As in the transcript, punctuation included, without white space.
        spoken: What is said, lower case, as one or more words of letters and apostrophes; characters that
            nobody can spell here (digits of other languages, unknown symbols) stay as they are.
    """

    written: str
    spoken: tuple[str, ...]


def words_of(text: str, language: str) -> list[Word]:
    """Split a transcript into words.

    Args:
        text: The transcript, in any case, with or without punctuation.
        language: Its code or name, for numbers and symbols.

    Returns:
        The words in order; empty if nothing in `text` is said.
    """
    language = main_code(language)
    clean = without_noise(unicodedata.normalize("NFC", text))
    words = (Word(token, spoken_form(token, language)) for token in clean.split())
    return [word for word in words if word.spoken]


def spoken_form(token: str, language: str) -> tuple[str, ...]:
    """What is said for one written word; empty for pure punctuation."""
    text = unicodedata.normalize("NFKC", token).translate(_APOSTROPHES).lower()
    text = _CURRENCY.sub(r"\2 \1", _GROUPED.sub("", text))
    text = _DOTTED.sub("", text)
    # Vowel signs of Indic scripts are marks, not letters, to `re`: they are matched through a stand-in.
    shape = "".join("a" if unicodedata.category(char).startswith("M") else char for char in text)
    spoken: list[str] = []
    for match in _PARTS.finditer(shape):
        spoken += _part(match, text[match.start() : match.end()], language)
    return tuple(spoken)


def _part(match: re.Match[str], value: str, language: str) -> list[str]:
    if match.lastgroup == "ordinal" and language == "en":
        return spell_ordinal(value[:-2])
    if match.lastgroup == "ordinal":
        return [*spell(value[:-2], language), value[-2:]]
    if match.lastgroup == "number":
        return spell(value.replace(",", "."), language)
    if match.lastgroup == "letters":
        return [value]
    return _symbol(value, language)


def _symbol(symbol: str, language: str) -> list[str]:
    known = _SYMBOLS.get(language, {}).get(symbol)
    if known is not None:
        return known.split()
    # Punctuation is silent; an unknown symbol is said somehow: kept, and timed by interpolation.
    return [symbol] if unicodedata.category(symbol) in ("Sc", "Sm", "So") else []
