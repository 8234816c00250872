"""What the report shows of the answers: what the model heard, what it said, how it classifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.evaluate.heldout.asked import Answers
from spiritlm_core.evaluate.heldout.listening import ANSWER, RECORDING, RESYNTHESIS, Listened
from spiritlm_core.evaluate.rendering import data_uri
from spiritlm_core.metrics.verdicts import WHO, Offered, Verdict

PLAYERS = 6
"""Utterances that can be listened to in the report."""

_SOUNDS = {
    RECORDING: "the recording",
    RESYNTHESIS: "resynthesis: the recording's own units through the vocoder",
    ANSWER: "the model says the text, and the vocoder makes it audible",
}


def sections(answers: Answers, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The values of the three sections, by name."""
    rows = answers.to_dict()
    listened = {one.clip.key: one for one in answers.listening.clips}
    players = {key: _sound(one, RECORDING) for key, one in [*listened.items()][:PLAYERS]}
    heard = [{**row, "sound": players.get(row["key"])} for row in rows.get("speech_to_text", ())]
    classified = answers.classified
    return {
        "heard": {"verdicts": _shown(verdicts, "transcribe"), "rows": heard},
        "said": {
            "verdicts": _shown(verdicts, "say"),
            "players": [_player(one) for one in answers.listening.clips[:PLAYERS] if RESYNTHESIS in one.sounds],
            "notes": answers.listening.notes,
        },
        "classified": {
            "verdicts": _shown(verdicts, "classify"),
            "labels": classified.labels if classified else (),
            "confusions": classified.confusions() if classified else (),
        },
    }


def _shown(verdicts: Sequence[Verdict], task: Offered) -> list[dict[str, Any]]:
    """Rows of a table of figures, those without solved examples."""
    return [
        {
            "group": one.group or "all",
            "verdict": one,
            "trivial": WHO.get(one.trivial_answer, one.trivial_answer),
            "beside": [(WHO.get(who, who), rate) for who, rate in one.beside.items()],
        }
        for one in verdicts
        if one.task == task and not one.shots
    ]


def _player(one: Listened) -> dict[str, Any]:
    """The sounds of one utterance; one that cannot be heard says so."""
    names = [name for name in _SOUNDS if name in one.sounds or name in one.heard]
    sounds = [{"about": _SOUNDS[name], "url": _sound(one, name), "heard": one.heard.get(name)} for name in names]
    return {"text": one.clip.text or one.clip.key, "sounds": sounds}


def _sound(one: Listened, name: str) -> str | None:
    return data_uri(encode_flac(one.sounds[name]), "audio/flac") if name in one.sounds else None
