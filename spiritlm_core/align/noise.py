"""Marks in a transcript of what is heard and not said: ``<noise>``, ``{LG}``, ``[loud bang]``, ``(laughs)``.

A mark stands between brackets and is

* a tag: ``<unk>``, ``<COMMA>``, ``</i>``, ``[background_speech]``, one word all small or all capital between ``<>``, or
  between ``[]`` or ``{}`` that touch no other word;
* words without digits between ``<>``, ``[]`` or ``{}``, one of which names a sound: ``[upbeat music]``;
* one word between ``()`` that names a sound: ``(Applause)``.

All else is text, brackets and all: ``I <3 you``, ``see [1 or 2]``, ``say [Speech] now``, ``th[is]-``, ``((foo))``.
"""

from __future__ import annotations

import re

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
    """`text` with a space in place of each mark."""
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
