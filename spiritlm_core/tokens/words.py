"""A transcript as words: the written form, and the spoken form for the aligner and for texts in spoken form.

``"Dial 500 [beep], then #."`` becomes ``Dial | 500 | then | #.`` with the spoken forms ``dial``,
``five hundred``, ``then`` and ``pound``. What is never said (marks of noise, dashes on
their own) is no word. Numbers are said by `num2words`: their gender and case are the dictionary form, for an aligner
needs the length and most of the letters.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from spiritlm_core.language import main_code, number_words

_BRACKETS = re.compile(r"<[^<>]+>|\[[^][]+\]|\{[^{}]+\}|\([^()]+\)")
_TAG = re.compile(r"/?[^\W\d_](?:[_+.:-]?[^\W\d_])+/?")
_SUBTITLE_TAG = re.compile(r"</?[bipsu]>", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+")
_SOUND = re.compile(
    r"(?:appla(?:us|ud)|background|bang|bark|beep|bell|breath|buzz|cheer|chuckl|clapp|click|cough|crackl|crosstalk|cry|exhal|"
    r"footstep|gasp|giggl|groan|hiss|humm|inaudibl|indistinct|inhal|laugh|laught|moan|music|nois|paus|ringing|sigh|silenc|silent|"
    r"singing|slam|smack|sneez|sniff|sobb|sound|static|throat|tone|unintelligibl|whistl|yawn)(?:e|es|s|er|ing)?",
    re.IGNORECASE,
)
"""What names a sound, in English, as in the marks of the common corpora and recognisers."""


def without_noise(text: str) -> str:
    """`text` with a space in place of each mark of what is heard and not said: ``<noise>``, ``(laughs)``.

    A mark stands between brackets and is

    * a tag: ``<unk>``, ``<COMMA>``, ``</i>``, ``[background_speech]``, one word all small or all capital between
      ``<>``, or between ``[]`` or ``{}`` that touch no other word;
    * words without digits between ``<>``, ``[]`` or ``{}``, one of which names a sound: ``[upbeat music]``;
    * one word between ``()`` that names a sound: ``(Applause)``.

    All else is text, brackets and all: ``I <3 you``, ``see [1 or 2]``, ``say [Speech] now``, ``th[is]-``, ``((foo))``.
    """
    return _BRACKETS.sub(lambda found: " " if _is_mark(found) else found[0], text)


def _is_mark(found: re.Match[str]) -> bool:
    inside = found[0][1:-1]
    words = _WORDS.findall(inside)
    named = any(map(_SOUND.fullmatch, words)) and not any(map(str.isdigit, inside))
    if found[0].startswith("("):
        return named and len(words) == 1
    if found[0].startswith("<") and inside != inside.strip():  # two signs
        return False
    return named or _is_tag(found, inside) or _SUBTITLE_TAG.fullmatch(found[0]) is not None


def _is_tag(found: re.Match[str], inside: str) -> bool:
    around = found.string[: found.start()][-1:] + found.string[found.end() :][:1]
    free = found[0].startswith("<") or not any(map(str.isalnum, around))
    return free and inside in (inside.lower(), inside.upper()) and _TAG.fullmatch(inside) is not None


LONGEST = 6  # digit strings longer than this, and those that begin with a zero, are read digit by digit


def spell(number: str, language: str) -> list[str]:
    """The words of a number such as ``"162"``, ``"007"`` or ``"28.8"``; itself where `num2words` cannot say it."""
    whole, _, fraction = number.partition(".")
    try:
        if len(whole) > LONGEST or (len(whole) > 1 and int(whole[0]) == 0):
            words = _digits(whole, language)
        else:
            words = number_words(
                int(whole), language, "year" if language == "en" and _is_year(int(whole)) else "cardinal"
            )
        if fraction:
            point = number_words(0.1, language)[1]
            words += [point, *_digits(fraction, language)]
    except Exception:  # noqa: BLE001 - in some of its languages num2words fails in ways of its own
        return [number]
    return words


def spell_ordinal(number: str) -> list[str]:
    """The words of an English ordinal: ``"21"`` gives ``["twenty", "first"]``."""
    return number_words(int(number), "en", "ordinal")


def _digits(digits: str, language: str) -> list[str]:
    return [word for digit in digits for word in number_words(int(digit), language)]


def _is_year(number: int) -> bool:
    """Whether it is read as a year more often than as an amount."""
    return 1100 <= number < 2000 and number % 100 != 0


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
    """One word of a transcript."""

    written: str  # as in the transcript, punctuation included, without white space
    spoken: tuple[str, ...]
    """What is said, lower case, as one or more words of letters and apostrophes; characters that nobody can spell here
    (digits of other languages, unknown symbols) stay as they are."""


def words_of(text: str, language: str) -> list[Word]:
    """The words of a transcript; its language (code or name) says how numbers and symbols are read."""
    language = main_code(language)
    clean = without_noise(unicodedata.normalize("NFC", text))
    words = (Word(token, spoken_form(token, language)) for token in clean.split())
    return [word for word in words if word.spoken]


def spoken_text(text: str, language: str) -> str:
    """What is said for a text, one space between words: ``"Press 2."`` gives ``"press two"``, and so does that."""
    said = " ".join([spoken for word in words_of(text, language) for spoken in word.spoken])
    return said if said == text else spoken_text(said, language)  # German numbers have capital letters


@lru_cache(maxsize=200_000)
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
