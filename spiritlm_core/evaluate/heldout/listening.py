"""What can be heard of an evaluation: recordings, their resynthesis and spoken answers, and what a recogniser hears."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.clips import Clip
from spiritlm_core.evaluate.recogniser import Recogniser, normalised
from spiritlm_core.evaluate.resynthesis.systems import speaker_of
from spiritlm_core.metrics.distances import Errors, errors, word_edits
from spiritlm_core.speech.tokenizer import styled
from spiritlm_core.tokens.speech import Streams, from_string

if TYPE_CHECKING:
    from spiritlm_core.speech.vocoder.vocoder import Vocoder

RECORDING, RESYNTHESIS, ANSWER = "recording", "resynthesis", "answer"
_EXAMPLES = 3
NAME_ONE = (
    "No recogniser listened; with evaluate.recogniser=hf://Systran/faster-whisper-tiny.en, or another one that can be "
    "had, word errors of what is heard are shown, too."
)
NO_VOCODER = "The recipe has no vocoder, so nothing can be heard of the answers: add a section `vocoder`."


@dataclass(frozen=True, eq=False)
class Listened:
    """One utterance."""

    clip: Clip
    # `RECORDING`, and with a vocoder `RESYNTHESIS` and `ANSWER` → float32[T] at 16 kHz; an answer
    # that cannot be heard is not there
    sounds: Mapping[str, Waveform]
    # the same names → what the recogniser wrote down, "" where there is no sound; empty without one
    heard: Mapping[str, str]


@dataclass(frozen=True)
class Listening:
    """All of them, why something cannot be heard or was not written down, and what makes units audible, if anything."""

    clips: tuple[Listened, ...] = ()
    notes: tuple[str, ...] = ()
    vocoder: Vocoder | None = None

    def errors(self, name: str) -> Errors | None:
        """Word errors of what the recogniser heard in the sounds called `name`; None if nobody listened to them."""
        heard = [one for one in self.clips if name in one.heard and one.clip.text]
        if not heard:
            return None
        texts, written = [one.clip.text or "" for one in heard], [one.heard[name] for one in heard]
        prepare = partial(_words, language=heard[0].clip.language)
        return errors(texts, written, prepare, word_edits, lambda text: len(text.split()))

    def rates(self) -> dict[str, Errors]:
        """Word errors in the spoken answers, beside those of silence and of the answers to other questions."""
        spoken = [one for one in self.clips if ANSWER in one.heard]
        if not spoken or (model := self.errors(ANSWER)) is None:
            return {}
        others = [*spoken[-1:], *spoken[:-1]]
        moved = [replace(one, heard={ANSWER: o.heard[ANSWER]}) for one, o in zip(spoken, others, strict=True)]
        silent = [replace(one, heard={ANSWER: ""}) for one in spoken]
        given = {"nothing": silent, **({"shuffled": moved} if len(spoken) > 1 else {})}
        trivial = {who: Listening(tuple(clips)).errors(ANSWER) for who, clips in given.items()}
        return {"model": model, **{who: found for who, found in trivial.items() if found is not None}}


def listen(
    clips: Sequence[Clip],
    answers: Mapping[str, str],
    units: Mapping[str, Mapping[str, Any]],
    vocoder: Vocoder | None,
    recogniser: Recogniser | None,
) -> Listening:
    """Make held-out recordings audible and write them down.

    `answers`: utterance_id → speech tokens that the model says its text with, of those that were asked; `units`:
    utterance_id → rows of the table `units`. Without a vocoder there are recordings alone, without a recogniser no
    texts.
    """
    notes = [] if vocoder else [NO_VOCODER]
    heard: list[Listened] = []
    for clip in clips:
        sounds = {RECORDING: clip.waveform}
        if vocoder is not None:
            sounds |= _voiced(vocoder, clip, units[clip.key], answers.get(clip.key))
        wanted = [*sounds, *([ANSWER] if vocoder and clip.key in answers and ANSWER not in sounds else [])]
        try:
            written = dict.fromkeys(wanted, "") if recogniser else {}
            written |= {name: recogniser.hear(sounds[name], clip.language) for name in sounds} if recogniser else {}
        except Rejection as problem:  # the language
            recogniser, written = None, {}
            notes.append(f"The recogniser does not listen: {problem}.")
        heard.append(Listened(clip, sounds, written))
    if recogniser is None and len(notes) == (vocoder is None):
        notes.append(NAME_ONE)
    return Listening(tuple(heard), tuple(notes) if clips else (), vocoder)


def _voiced(vocoder: Vocoder, clip: Clip, row: Mapping[str, Any], answer: str | None) -> dict[str, Waveform]:
    """The recording's own units through the vocoder, as long as they were; and the answer, as by ``spiritlm say``."""
    sounds = {RESYNTHESIS: vocoder.decode(_streams(row), speaker=speaker_of(vocoder, clip), predict_durations=False)}
    if answer is not None and (waveform := spoken(vocoder, answer)) is not None:
        sounds[ANSWER] = waveform
    return sounds


def spoken(vocoder: Vocoder, tokens: str) -> Waveform | None:
    """Speech tokens as sound, float32[T] at 16 kHz; None if they have no unit, or no pitch, that could be heard."""
    streams = styled(from_string(tokens), vocoder.config.usual_styles)
    lacking = not len(streams.hubert) or (vocoder.config.pitch_units and streams.pitch is None)
    return None if lacking else vocoder.decode(streams)


def write_examples(path: Path, clips: Sequence[Listened]) -> None:
    """A few recordings with transcripts to try the model with, and the list of them at `path`."""
    chosen = [one.clip for one in clips if one.clip.text][:_EXAMPLES]
    if chosen:
        path.parent.mkdir()
        for number, clip in enumerate(chosen, start=1):
            (path.parent / f"{number}.flac").write_bytes(encode_flac(clip.waveform))
        rows = [{"audio": f"{number}.flac", "text": clip.text} for number, clip in enumerate(chosen, start=1)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _words(text: str, language: str | None) -> str:
    """As :func:`normalised`, each digit a word: that makes one word, 89, of "eight nine"."""
    return re.sub(r"(?<=\d)(?=\d)", " ", normalised(text, language))


def _streams(row: Mapping[str, Any]) -> Streams:
    hubert, pitch, style = (None if row[name] is None else np.array(row[name]) for name in ("hubert", "pitch", "style"))
    return Streams(hubert, pitch, style)  # type: ignore[arg-type]
