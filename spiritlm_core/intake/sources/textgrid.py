"""Praat's TextGrids, long or short: the words of one tier."""

import itertools
import re
from collections.abc import Iterator

from spiritlm_core.errors import Rejection

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\w\[.])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\]])')
_TIERS = ("transcript", "utterance", "sentence", "text", "ort", "word", "")
_SILENCE = re.compile(r"<[^>]*>|\b(sil|sp|spn)\b|#")


def text_of_grid(text: str) -> str:
    """The words of the tier whose name promises them; empty if there is no such tier.

    Raises Rejection: it ends before it should.
    """
    tiers = list(_tiers(iter(_TOKEN.findall(text))))
    spoken = [(name.lower(), labels) for name, labels in tiers if not re.search("phon|seg", name.lower())]
    for wanted in _TIERS:
        named = [(name, labels) for name, labels in spoken if wanted in name]
        if named and (wanted or len(named) == 1):
            speakers = all(" - " in name for name, _ in named)  # of the Montreal forced aligner
            labels = sorted(itertools.chain(*(labels for _, labels in named))) if speakers else named[0][1]
            return " ".join(label for _, label in labels if not _SILENCE.fullmatch(label.strip()))
    return ""


def _tiers(tokens: Iterator[tuple[str, str]]) -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Name and labels of every tier, with the seconds where they begin."""
    try:
        head = [next(tokens)[0] for _ in range(2)]
        count = [next(tokens)[1] for _ in range(3)][2]
    except StopIteration:
        return
    if head not in (["ooTextFile", "TextGrid"], ["ooTextFile short", "TextGrid"]):
        raise Rejection("is no TextGrid")
    try:
        for _ in range(int(count)):
            kind, name = next(tokens)[0], next(tokens)[0]
            size = int([next(tokens)[1] for _ in range(3)][2])
            yield name, [_label(tokens, kind) for _ in range(size)]
    except (StopIteration, RuntimeError, ValueError) as error:
        raise Rejection("ends before all its tiers are told") from error


def _label(tokens: Iterator[tuple[str, str]], kind: str) -> tuple[float, str]:
    start = next(tokens)[1]
    if kind == "IntervalTier":
        next(tokens)
    return float(start), next(tokens)[0].replace('""', '"')
