"""Figures that others have published on whole official test sets; a reference, never measured here."""

from __future__ import annotations

_BASE, _EXPRESSIVE = "Spirit LM Base 7B", "Spirit LM Expressive 7B"

# arXiv 2402.05755, as quoted in arXiv 2502.15814; speech alone
_SPEECH = {"sblimp": 58.3, "storycloze": 61.0, "topicstorycloze": 82.9}

# the leaderboard of SALMon, arXiv 2409.07437
_SALMON = {
    "bg_alignment": (51.5, 59.5),
    "bg_all_consistency": (55.5, 64.0),
    "bg_domain_consistency": (53.5, 55.0),
    "gender_consistency": (67.0, 85.0),
    "rir_consistency": (54.5, 54.5),
    "sentiment_alignment": (48.0, 52.0),
    "sentiment_consistency": (54.5, 73.5),
    "speaker_consistency": (69.5, 81.0),
}
_ALIASES = {
    "sstorycloze": "storycloze",
    "ssc": "storycloze",
    "tstorycloze": "topicstorycloze",
    "tsc": "topicstorycloze",
}


def published(task: str, layout: str, direction: str) -> dict[str, float]:
    """Published accuracy in per cent by model; empty where none is known, and for every set of one's own.

    Args:
        task: name of the task; a part of SALMon is known by what follows the last ``/``.
        layout: how its folder is laid out.
        direction: such as ``S``.
    """
    if direction != "S" or layout == "pairs.jsonl":
        return {}
    if layout == "SALMon":
        return dict(zip((_BASE, _EXPRESSIVE), _SALMON.get(task.rpartition("/")[2], ()), strict=False))
    plain = "".join(letter for letter in task.lower() if letter.isalnum())
    rates = _SPEECH.get(_ALIASES.get(plain, plain))
    return {} if rates is None else {_BASE: rates}
