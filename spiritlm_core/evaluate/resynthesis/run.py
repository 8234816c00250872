"""Judging systems on the same clips, as one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.evaluate.clips import Recogniser, word_and_character_errors
from spiritlm_core.evaluate.config import ResynthesisConfig
from spiritlm_core.evaluate.resynthesis.distances import Analysis, Embedding, SpeakerEncoder, analyse, compare, cosine
from spiritlm_core.evaluate.resynthesis.figures import Row, result_of, rounded
from spiritlm_core.evaluate.resynthesis.systems import ORIGINAL, System
from spiritlm_core.fit.clips import Clip
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.references.reference import resolve

Tell = Callable[[float, str], None]  # told the share of the work that is done, and what is being done


@dataclass(frozen=True)
class Judges:
    """The models that listen; without one its figures are missing, for the reason given."""

    recogniser: Recogniser | None = None
    speakers: SpeakerEncoder | None = None
    missing: Mapping[str, str] = field(default_factory=dict)  # "recogniser" or "speakers" → why

    @classmethod
    def load(cls, models: Mapping[str, Path | str]) -> Judges:
        """Load the roles ``recogniser`` and ``speaker_encoder``: a folder or file, or why there is none.

        Raises ModelReferenceError: a model is damaged.
        """
        recogniser, speakers = (models.get(role, "no model given") for role in ("recogniser", "speaker_encoder"))
        given = {"recogniser": recogniser, "speakers": speakers}
        return cls(
            Recogniser(recogniser) if isinstance(recogniser, Path) else None,
            SpeakerEncoder.load(speakers) if isinstance(speakers, Path) else None,
            {name: reason for name, reason in given.items() if isinstance(reason, str)},
        )

    @classmethod
    def fetch(cls, config: ResynthesisConfig) -> Judges:
        """Those that `config` names, fetched if they are not here; one that cannot be had is missing in the report.

        Raises ModelReferenceError: a model is here but damaged.
        """
        return cls.load({role: _fetched(getattr(config, role)) for role in ("recogniser", "speaker_encoder")})


def _fetched(reference: str) -> Path | str:
    """A model's place, or why it cannot be had."""
    try:
        return resolve(reference).path
    except ModelReferenceError as error:
        return str(error)


@dataclass(frozen=True)
class Resynthesis:
    """The outcome."""

    report: dict[str, Any]  # every figure, JSON values
    sounds: dict[str, dict[str, Waveform]]  # system → clip → float32[T] at 16 kHz, of the first clips, to listen to


@dataclass(frozen=True, eq=False)
class _Recording:
    """What is known of a clip before any system is judged."""

    clip: Clip
    analysis: Analysis
    voice: Embedding | None
    others: Embedding | None  # mean voice of the other clips of the speaker


def evaluate_resynthesis(
    clips: Sequence[Clip],
    systems: Iterable[System],
    config: ResynthesisConfig,
    judges: Judges,
    *,
    tell: Tell = lambda *_: None,
) -> Resynthesis:
    """Judge every system on every clip; the first of `systems` is the recording itself.

    Raises SpiritLMError: there are no clips, systems with the same name, or one that cannot render a clip.
    """
    if not clips:
        raise SpiritLMError("there are no clips to resynthesise")
    todo = list(systems)
    if len({system.name for system in todo}) < len(todo):
        raise SpiritLMError("two systems have the same name: name the models apart with NAME=FOLDER")
    tell(0.0, f"analysing {len(clips)} clips")
    known, listened = _recordings(clips, judges), {clip.key for clip in clips[: config.players]}
    results: list[dict[str, Any]] = []
    sounds: dict[str, dict[str, Waveform]] = {}
    for number, system in enumerate(todo):
        tell((number + 0.5) / (len(todo) + 1), f"judging {system.name}")
        rows, kept = _judge(system, known, judges, listened)
        sounds[system.name] = kept
        results.append(result_of(system, rows, results[0]["clips"] if results else rows, config))
    return Resynthesis(_report(clips, results, config, judges), sounds)


def _recordings(clips: Sequence[Clip], judges: Judges) -> list[_Recording]:
    voices = [judges.speakers.embed(clip.waveform) if judges.speakers else None for clip in clips]
    return [
        _Recording(clip, analyse(clip.waveform), voice, _others(i, clips, voices))
        for i, (clip, voice) in enumerate(zip(clips, voices, strict=True))
    ]


def _others(index: int, clips: Sequence[Clip], voices: Sequence[Embedding | None]) -> Embedding | None:
    speaker = clips[index].speaker
    others = [voice for i, voice in enumerate(voices) if i != index and speaker and clips[i].speaker == speaker]
    same = [voice for voice in others if voice is not None]
    return np.mean(same, axis=0) if same else None


def _judge(
    system: System, recordings: Sequence[_Recording], judges: Judges, listened: set[str]
) -> tuple[list[Row], dict[str, Waveform]]:
    """The figures of every clip, and those of its waveforms that are kept."""
    rows, kept = [], {}
    for recording in recordings:
        clip = recording.clip
        try:
            waveform = system.render(clip)
        except SpiritLMError as error:
            raise SpiritLMError(f"{system.name} cannot render clip {clip.key}: {error}") from error
        if not np.isfinite(waveform).all():
            raise SpiritLMError(f"{system.name} renders clip {clip.key} with samples that are not finite")
        rows.append(_row(system, recording, waveform, judges))
        if clip.key in listened:
            kept[clip.key] = waveform
    return rows, kept


def _row(system: System, recording: _Recording, waveform: Waveform, judges: Judges) -> Row:
    clip = recording.clip
    seconds = (len(waveform) - len(clip.waveform)) / SAMPLE_RATE
    analysis = recording.analysis if system.name == ORIGINAL else analyse(waveform)
    return {
        "clip": clip.key,
        **_heard(clip, waveform, judges.recogniser),
        **asdict(compare(recording.analysis, analysis, timed=system.timed)),
        "seconds": len(waveform) / SAMPLE_RATE,
        "duration_seconds": abs(seconds),
        "duration_share": abs(seconds) / clip.seconds,
        **_voice(recording, waveform, judges.speakers),
    }


def _heard(clip: Clip, waveform: Waveform, recogniser: Recogniser | None) -> Row:
    if recogniser is None:
        return {}
    try:
        heard = recogniser.hear(waveform, clip.language)
    except Rejection as error:
        return {"not_heard": str(error)}
    if not clip.text:
        return {"heard": heard, "not_heard": "no transcript"}
    words, characters = word_and_character_errors([clip.text], [heard], clip.language)
    edits = {"word_edits": words.edits[0], "character_edits": characters.edits[0]}
    return {"heard": heard, **edits, "words": words.length[0], "characters": characters.length[0]}


def _voice(recording: _Recording, waveform: Waveform, encoder: SpeakerEncoder | None) -> Row:
    if encoder is None or recording.voice is None:
        return {}
    voice = encoder.embed(waveform)
    others = {} if recording.others is None else {"speaker_others": cosine(voice, recording.others)}
    return {"speaker": cosine(voice, recording.voice), **others}


def _report(
    clips: Sequence[Clip], results: list[dict[str, Any]], config: ResynthesisConfig, judges: Judges
) -> dict[str, Any]:
    speakers = sorted({clip.speaker for clip in clips if clip.speaker})
    about = {
        "clips": len(clips),
        "minutes": round(sum(clip.seconds for clip in clips) / 60, 2),
        "speakers": speakers,
        "with_transcript": sum(bool(clip.text) for clip in clips),
    }
    return {
        "settings": config.model_dump(mode="json"),
        "held_out": about,
        "missing": _missing(results, judges),
        "texts": {clip.key: clip.text for clip in clips},
        "systems": [rounded(result) for result in results],
    }


def _missing(results: Sequence[Mapping[str, Any]], judges: Judges) -> dict[str, str]:
    """Why there are figures that no clip, or not every clip, has."""
    missing = dict(judges.missing)
    reasons = [row["not_heard"] for row in results[0]["clips"] if "not_heard" in row]
    if reasons and "recogniser" not in missing:
        missing["recogniser"] = f"{len(reasons)} clips: {reasons[0]}"
    return missing
