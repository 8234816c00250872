"""Voices: an entry each of the setting ``voices``, and what is drawn for an utterance."""

import shlex
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from spiritlm_core.config import FrozenConfig, Optionally, Span
from spiritlm_core.errors import SourceError
from spiritlm_core.failures import require
from spiritlm_core.intake.speak.draw import Draw, evenly, rounded
from spiritlm_core.intake.speak.flite import PITCH, command, version
from spiritlm_core.intake.speak.utterance import Utterance
from spiritlm_core.references.reference import resolve
from spiritlm_core.references.syntax import ModelReference

ACCENTS = {
    "en": ("en-us", "en", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
}
"""Voices of eSpeak NG for a language that has more than one; ``en`` is British."""
VARIANTS = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5",
    "adam", "anika", "belinda", "boris", "david", "ian", "linda", "michel", "pablo", "steph", "victor",
)  # fmt: skip
_LETTERS_PER_SECOND = 18.7  # of speech at an ordinary speed
_WORDS_PER_MINUTE = 165.0


class Voices(FrozenConfig):
    """Voices of one engine. Adding an entry changes only the utterances that it takes over."""

    title: ClassVar[str]  # what a model card calls the engine
    weight: float = Field(1.0, gt=0, description="Share of the utterances, compared with the other entries.")
    optional: Optionally = Field(
        False,
        description="true: where the engine or its voices cannot be had, the run goes on without; absent: it does "
        "anyhow. The other entries then say what this one would.",
    )
    engine: str

    @property
    def name(self) -> str:
        """Tells it from other entries."""
        return self.model_dump_json(exclude={"weight", "optional"})

    def check(self) -> None:
        """Raise a SpiritLMError if the engine, or a model that it needs, is not there."""

    def utterance(self, text: str, language: str, draw: Draw) -> Utterance:
        """Who speaks `text`, and how."""
        raise NotImplementedError

    def seconds(self, utterance: Utterance) -> float:
        """How long it will last, about."""
        return 0.6 + len(utterance.text) / _LETTERS_PER_SECOND


class EspeakVoices(Voices):
    """Voices of eSpeak NG: small, quick and synthetic. Needs the extra ``speak``."""

    title: ClassVar[str] = "eSpeak NG"

    engine: Literal["espeak"] = "espeak"
    names: tuple[str, ...] = Field((), description="Voices such as en-us; none takes all accents of the language.")
    variants: tuple[str, ...] = Field(
        VARIANTS,
        min_length=1,
        description="Variants (m1 …, f1 …) that change a voice; an empty one is the voice itself.",
    )
    rate: Span = Field((110.0, 220.0), description="Words per minute, 80 to 450.")
    pitch: Span = Field((20.0, 80.0), description="Base pitch, 0 to 99; 50 is the voice's own.")
    range: Span = Field((20.0, 80.0), description="How far the pitch moves, 0 (monotone) to 99; 50 is the voice's own.")

    def check(self) -> None:
        """Raise MissingExtraError if eSpeak NG is not installed."""
        require("espeakng_loader")

    def utterance(self, text: str, language: str, draw: Draw) -> Utterance:
        """Who speaks `text`, and how."""
        name = evenly(self.names or ACCENTS.get(language, (language,))).pick(draw.at("name"))
        variant = evenly(self.variants).pick(draw.at("variant"))
        drawn = {field: round(draw.at(field).between(*getattr(self, field))) for field in ("rate", "pitch", "range")}
        voice = f"{name}+{variant}" if variant else name
        return Utterance("espeak", voice, text, {field: str(value) for field, value in drawn.items()})

    def seconds(self, utterance: Utterance) -> float:
        """How long it will last, about."""
        return super().seconds(utterance) * _WORDS_PER_MINUTE / float(utterance.settings["rate"])


class PiperVoices(Voices):
    """One model of Piper, an ``.onnx`` file with its ``.onnx.json`` beside it. Needs the extra ``piper``."""

    title: ClassVar[str] = "Piper"

    engine: Literal["piper"] = "piper"
    model: ModelReference = Field(
        description="The folder of NAME.onnx and NAME.onnx.json: hf://…, pypi://…, s3://… or file://…."
    )
    speakers: tuple[int, ...] = Field((), description="Numbers of speakers of a model that has several; none takes 0.")
    length_scale: Span = Field((0.8, 1.3), description="Slowness, 1 is the model's own.")
    noise_scale: Span = Field((0.4, 0.8), description="How much the sound varies, 0.667 is usual.")
    noise_w: Span = Field((0.5, 1.0), description="How much the lengths of sounds vary, 0.8 is usual.")

    def check(self) -> None:
        """Raise a SpiritLMError if Piper or the model is not there."""
        require("piper")
        piper_model(self.model)

    def utterance(self, text: str, language: str, draw: Draw) -> Utterance:
        """Who speaks `text`, and how; the model's digest is a part of it."""
        model, digest = piper_model(self.model)
        drawn = {
            field: str(rounded(draw.at(field).between(*getattr(self, field))))
            for field in ("length_scale", "noise_scale", "noise_w")
        }
        speaker = evenly(tuple(map(str, self.speakers))).pick(draw.at("speaker")) if self.speakers else ""
        if speaker:
            drawn["speaker"] = speaker
        settings = {**drawn, "model": self.model, "digest": digest[:16]}
        return Utterance("piper", f"{model.stem}-{speaker}" if speaker else model.stem, text, settings)

    def seconds(self, utterance: Utterance) -> float:
        """How long it will last, about."""
        return super().seconds(utterance) * float(utterance.settings["length_scale"])


@lru_cache(maxsize=16)
def piper_model(reference: str) -> tuple[Path, str]:
    """The ``.onnx`` file of a reference to it or to its folder, with its ``.onnx.json`` beside it, and the digest.

    Raises ModelReferenceError: there is no such model; SourceError: it is no voice of Piper.
    """
    found = resolve(reference)
    models = sorted(found.path.glob("*.onnx")) if found.path.is_dir() else [found.path]
    if len(models) != 1 or not Path(f"{models[0]}.json").is_file():
        raise SourceError(
            f"{reference}: a voice of Piper is NAME.onnx with NAME.onnx.json beside it: name their folder"
        )
    return models[0], found.digest


class FliteVoices(Voices):
    """Voices of Flite, in English. It is taken from the PATH, else out of Debian's packages."""

    title: ClassVar[str] = "Flite"

    engine: Literal["flite"] = "flite"
    names: tuple[Literal["slt", "rms", "awb", "kal16", "kal"], ...] = Field(
        ("slt", "rms", "awb", "kal16"), min_length=1, description="Its voices; kal is kal16 by telephone."
    )
    stretch: Span = Field((0.85, 1.35), description="Slowness, 1 is the voice's own.")
    pitch: Span = Field((0.85, 1.2), description="Mean pitch, 1 is the voice's own; rms keeps its own.")

    def check(self) -> None:
        """Fetch Flite if it is not there. Raises SpiritLMError if it cannot be had, or lacks a voice."""
        for name in self.names:
            command(name)

    def utterance(self, text: str, language: str, draw: Draw) -> Utterance:
        """Who speaks `text`, and how; the version of Flite is a part of it.

        Raises SourceError: flite does not speak the language.
        """
        if language != "en":
            raise SourceError(f"source speak: engine flite speaks English, not {language}: leave it out of `voices`")
        voice = evenly(self.names).pick(draw.at("name"))
        drawn = {"duration_stretch": draw.at("stretch").between(*self.stretch)}
        if mean := PITCH[voice]:
            drawn["int_f0_target_mean"] = mean * draw.at("pitch").between(*self.pitch)
        settings = {name: str(rounded(value)) for name, value in drawn.items()}
        return Utterance("flite", voice, text, {**settings, "version": version()})

    def seconds(self, utterance: Utterance) -> float:
        """How long it will last, about."""
        return super().seconds(utterance) * float(utterance.settings["duration_stretch"])


class CommandVoices(Voices):
    """Any program that reads a text and writes a WAV file."""

    title: ClassVar[str] = "a program of whoever trained the model"

    engine: Literal["command"] = "command"
    command: str = Field(
        description="Command line with {text_file} or {text}, {wav} and, with several voices, {voice}: "
        "text2wave {text_file} -o {wav}. It is not run by a shell."
    )
    names: tuple[str, ...] = Field((), description="Voices that {voice} stands for.")

    @field_validator("command")
    @classmethod
    def _is_a_command(cls, command: str) -> str:
        try:
            parts = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"cannot be parted into words: {error}") from None
        if "{wav}" not in command or not ("{text_file}" in command or "{text}" in command) or not parts:
            raise ValueError("must say {wav}, where the program writes, and {text_file} or {text}, what it reads")
        return command

    def utterance(self, text: str, language: str, draw: Draw) -> Utterance:
        """Who speaks `text`, and how."""
        program = PurePosixPath(shlex.split(self.command)[0]).name
        voice = evenly(self.names).pick(draw.at("name")) if self.names else program
        return Utterance("command", voice, text, {"command": self.command})


AnyVoices = Annotated[EspeakVoices | PiperVoices | FliteVoices | CommandVoices, Field(discriminator="engine")]
"""An entry of ``voices``. A new engine is a class here, and a function in ``spiritlm_core/audio/voices/``."""


class SoundConfig(FrozenConfig):
    """What is done to the sound of an utterance, so that not all of it is as clean as a machine speaks."""

    bands: tuple[int, ...] = Field(
        (16000, 8000), min_length=1, description="Sampling rates, one is drawn: 8000 sounds like a telephone."
    )
    loudness: Span | None = Field((-32.0, -16.0), description="Mean level in dB of full scale; null leaves it.")
    noise: Span | None = Field((15.0, 50.0), description="Decibels of the speech above noise; null: no noise.")
    silence: Span | None = Field((0.1, 0.4), description="Seconds of silence before and after; null: none.")
    room: Span | None = Field((0.0, 0.3), description="Seconds until an echo has died away (60 dB); null: no echo.")

    @field_validator("bands")
    @classmethod
    def _are_rates(cls, bands: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [band for band in bands if not 4000 <= band <= 16000]:
            raise ValueError(f"{wrong[0]} is no sampling rate from 4000 to 16000")
        return bands

    def settings(self, draw: Draw) -> dict[str, str]:
        """What is drawn for an utterance."""
        drawn = {
            name: str(rounded(draw.at(name).between(*span)))
            for name in ("silence", "room", "noise", "loudness")
            if (span := getattr(self, name)) is not None
        }
        band = evenly(tuple(map(str, self.bands))).pick(draw.at("band"))
        return drawn | ({"band": band} if band != "16000" else {})
