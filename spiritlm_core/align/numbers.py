"""Numbers as they are said, by `num2words`; for the aligner only, never for the text.

Gender and case are the dictionary form: an aligner needs the length and most of the letters.
"""

from __future__ import annotations

import re

LONGEST = 6
"""Digit strings longer than this, and those that begin with a zero, are read digit by digit."""


def spell(number: str, language: str) -> list[str]:
    """The words of a number such as ``"162"``, ``"007"`` or ``"28.8"``.

    Args:
        number: Digits with at most one ``.`` between them.
        language: ISO 639-1 code.

    Returns:
        Its words; ``[number]`` unchanged where `num2words` cannot say it in that language.
    """
    whole, _, fraction = number.partition(".")
    try:
        if len(whole) > LONGEST or (len(whole) > 1 and int(whole[0]) == 0):
            words = _digits(whole, language)
        else:
            words = _said(int(whole), language, "year" if language == "en" and _is_year(int(whole)) else "cardinal")
        if fraction:
            point = _said(0.1, language)[1]
            words += [point, *_digits(fraction, language)]
    except Exception:  # noqa: BLE001 - in some of its languages num2words fails in ways of its own
        return [number]
    return words


def spell_ordinal(number: str) -> list[str]:
    """The words of an English ordinal: ``"21"`` gives ``["twenty", "first"]``."""
    return _said(int(number), "en", "ordinal")


def _digits(digits: str, language: str) -> list[str]:
    return [word for digit in digits for word in _said(int(digit), language)]


def _is_year(number: int) -> bool:
    """Whether it is read as a year more often than as an amount."""
    return 1100 <= number < 2000 and number % 100 != 0


def _said(number: float, language: str, to: str = "cardinal") -> list[str]:
    """American English, which says no ``and`` within a number. Raises NotImplementedError for other languages."""
    from num2words import num2words

    words = re.split(r"[\s,-]+", num2words(number, lang=language, to=to))
    return [word for word in words if word and not (language == "en" and word == "and")]
