"""Numbers as they are said, in the languages of the prompt corpora; for the aligner only, never for the text.

Cardinals below a million are spelt as words, longer digit strings and those with a leading zero digit by
digit. Gender and case are the dictionary form: an aligner needs the length and most of the letters.
"""

from __future__ import annotations

from collections.abc import Callable


def _words(text: str) -> list[str]:
    return text.split()


_EN = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_EN_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_EN_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ES = _words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis "
    "diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis "
    "veintisiete veintiocho veintinueve"
)
_ES_TENS = _words("treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_ES_HUNDREDS = _words(
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
_FR = _words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf"
)
_FR_TENS = _words("vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")
_IT = _words(
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici "
    "sedici diciassette diciotto diciannove"
)
_IT_TENS = _words("venti trenta quaranta cinquanta sessanta settanta ottanta novanta")
_RU = _words(
    "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать "
    "четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать"
)
_RU_TENS = _words("двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто")
_RU_HUNDREDS = _words("сто двести триста четыреста пятьсот шестьсот семьсот восемьсот девятьсот")

_POINT = {"en": "point", "es": "punto", "fr": "virgule", "it": "virgola", "ru": "запятая"}
LONGEST = 6
"""Digit strings longer than this are read digit by digit."""


def spell(number: str, language: str) -> list[str]:
    """The words of a number such as ``"162"``, ``"007"`` or ``"28.8"``.

    Args:
        number: Digits with at most one ``.`` between them.
        language: ISO 639-1 code.

    Returns:
        Its words; ``[number]`` unchanged where the language has no spelling here.
    """
    cardinal = _CARDINALS.get(language)
    if cardinal is None:
        return [number]
    whole, _, fraction = number.partition(".")
    if len(whole) > LONGEST or (len(whole) > 1 and whole.startswith("0")):
        words = [word for digit in whole for word in cardinal(int(digit))]
    else:
        words = cardinal(int(whole or "0"))
    if fraction:
        words = [*words, _POINT[language], *(word for digit in fraction for word in cardinal(int(digit)))]
    return [part for word in words for part in word.split("-")]


def spell_ordinal(number: str) -> list[str]:
    """The words of an English ordinal: ``"21"`` gives ``["twenty", "first"]``."""
    *head, last = spell(number, "en")
    if last.endswith("y"):
        return [*head, last[:-1] + "ieth"]
    return [*head, _EN_ORDINALS.get(last, last + "th")]


def _thousands(n: int, below: Callable[[int], list[str]], thousand: str, *, say_one: bool) -> list[str]:
    many, rest = divmod(n, 1000)
    head = [thousand] if many == 1 and not say_one else [*below(many), thousand]
    return [*head, *(below(rest) if rest else [])]


def _english(n: int) -> list[str]:
    if n < 20:
        return [_EN[n]]
    if n < 100:
        return [_EN_TENS[n // 10 - 2], *([_EN[n % 10]] if n % 10 else [])]
    if n < 1000:
        return [_EN[n // 100], "hundred", *(_english(n % 100) if n % 100 else [])]
    if 1100 <= n < 2000 and n % 100:  # read as a year more often than as an amount
        return [*_english(n // 100), *(["oh"] if n % 100 < 10 else []), *_english(n % 100)]
    return _thousands(n, _english, "thousand", say_one=True)


def _spanish(n: int) -> list[str]:
    if n < 30:
        return [_ES[n]]
    if n < 100:
        return [_ES_TENS[n // 10 - 3], *(["y", _ES[n % 10]] if n % 10 else [])]
    if n == 100:
        return ["cien"]
    if n < 1000:
        return [_ES_HUNDREDS[n // 100 - 1], *(_spanish(n % 100) if n % 100 else [])]
    return _thousands(n, _spanish, "mil", say_one=False)


def _french(n: int) -> list[str]:
    if n < 20:
        return [_FR[n]]
    if n < 100:
        tens = n // 10
        rest = n % 10 + (10 if tens in (7, 9) else 0)
        link = ["et"] if rest in (1, 11) and tens < 8 else []
        return [_FR_TENS[tens - 2], *link, *([_FR[rest]] if rest else [])]
    if n < 1000:
        return [*(_french(n // 100) if n >= 200 else []), "cent", *(_french(n % 100) if n % 100 else [])]
    return _thousands(n, _french, "mille", say_one=False)


def _italian(n: int) -> list[str]:
    if n < 20:
        return [_IT[n]]
    if n < 100:
        tens, unit = _IT_TENS[n // 10 - 2], n % 10
        return [(tens[:-1] if unit in (1, 8) else tens) + (_IT[unit] if unit else "")]
    if n < 1000:
        head = "cento" if n < 200 else _IT[n // 100] + "cento"
        return ["".join([head, *(_italian(n % 100) if n % 100 else [])])]
    many, rest = divmod(n, 1000)
    head = "mille" if many == 1 else "".join(_italian(many)) + "mila"
    return [head, *(_italian(rest) if rest else [])]


def _russian(n: int) -> list[str]:
    if n < 20:
        return [_RU[n]]
    if n < 100:
        return [_RU_TENS[n // 10 - 2], *([_RU[n % 10]] if n % 10 else [])]
    if n < 1000:
        return [_RU_HUNDREDS[n // 100 - 1], *(_russian(n % 100) if n % 100 else [])]
    many, rest = divmod(n, 1000)
    feminine = {"один": "одна", "два": "две"}
    head = [feminine.get(word, word) for word in _russian(many)] if many > 1 else []
    unit = 0 if many % 100 in range(11, 15) else many % 10
    noun = "тысяча" if unit == 1 else "тысячи" if unit in (2, 3, 4) else "тысяч"
    return [*head, noun, *(_russian(rest) if rest else [])]


_CARDINALS: dict[str, Callable[[int], list[str]]] = {
    "en": _english,
    "es": _spanish,
    "fr": _french,
    "it": _italian,
    "ru": _russian,
}
