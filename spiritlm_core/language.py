"""Languages under one name each: ``en-US``, ``en_us``, ``EN``, ``eng`` and ``English`` are all ``en``."""

import re
from functools import cache
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator

_NONE = (None, "mis", "mul", "zxx")  # ISO 639's codes for no language in particular
USUAL = frozenset({"ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk", "zh"})
"""Codes that are themselves, known without the tables of all languages, which take long to load."""
_ENCODING = re.compile(r"[.@].*")  # of a POSIX locale, en_US.UTF-8


@cache
def language_code(name: str) -> str:
    """The ISO 639 code, two letters where there are two; region and script are left out.

    Args:
        name: a code or tag of any spelling, a POSIX locale, or the name of a language in a language.

    Raises:
        ValueError: it is no language.
    """
    if name in USUAL:
        return name
    import langcodes

    tag = _ENCODING.sub("", name.strip())
    try:
        language = langcodes.Language.make(language=langcodes.Language.get(tag).language)
    except ValueError:
        language = langcodes.Language.make()
    if language.language in _NONE or not language.is_valid():
        language = _named(tag)
    if language is None:
        raise ValueError(f"{name!r} is no language: write its code, such as en, fr or yue")
    return str(language.prefer_macrolanguage().language)


def _named(name: str) -> Any:
    """The language of that name, in any language; None if there is none. Shorter ones are mistyped codes."""
    import langcodes

    try:
        named = name.isprintable() and (len(name) > 3 or not name.isascii())
        return langcodes.find(name) if named else None
    except LookupError:
        return None


def main_code(name: str | None, default: str = "en") -> str:
    """As :func:`language_code`; no name is `default`, and what is no language stays as it is."""
    try:
        return language_code(name) if name else default
    except ValueError:
        return str(name)


def number_words(number: float, language: str, form: str = "cardinal") -> list[str]:
    """The words of a number, of English the American ones, without ``and``.

    Args:
        number: what is said.
        language: its code.
        form: cardinal, ordinal or year.

    Raises:
        NotImplementedError: nobody has written down how that language says it.
    """
    from num2words import num2words

    words = re.split(r"[\s,-]+", num2words(number, lang=language, to=form))
    return [word for word in words if word and not (language == "en" and word == "and")]


LanguageCode: TypeAlias = Annotated[str, AfterValidator(language_code)]  # A setting that names a language
