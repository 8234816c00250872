"""Synthetic speech: texts that machines speak, in many voices."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.draft import Draft
from spiritlm_core.intake.files import File
from spiritlm_core.intake.notes import note
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.speak.draw import Choice, Draw
from spiritlm_core.intake.speak.texts import AnyTexts, GrammarTexts, Made, TranscriptTexts, guess_texts
from spiritlm_core.intake.speak.transcripts import Told
from spiritlm_core.intake.speak.utterance import Utterance
from spiritlm_core.intake.speak.voices import AnyVoices, EspeakVoices, SoundConfig, Voices

_UTTERANCES = 1000
_BYTES = 32_000  # of a second of sound, 16 bit at 16 kHz
_SILENT = 1000  # texts after each other that are none


class SpeakSource(Source):
    """Texts spoken by machines; such recordings are trained on and never held out."""

    short: ClassVar[str] = "texts"

    kind: Literal["speak"] = "speak"
    origin: Literal["synthetic"] = Field("synthetic", description="It is always synthetic.")
    texts: tuple[AnyTexts, ...] = Field(
        (GrammarTexts(),), min_length=1, description="What is said. Adding an entry changes only what it takes over."
    )
    voices: tuple[AnyVoices, ...] = Field((EspeakVoices(),), min_length=1, description="Who says it.")
    sound: SoundConfig = Field(SoundConfig(), description="What is done to the sound.")
    utterances: int | None = Field(
        None, ge=1, description="How many utterances; null: 1000, or as `minutes` says. More keep those that there are."
    )
    minutes: float | None = Field(None, gt=0, description="About how many minutes of speech, instead of `utterances`.")
    seed: int = Field(0, ge=0, description="Another one draws other texts and other voices for them.")

    @field_validator("texts", mode="before")
    @classmethod
    def _short_form(cls, texts: Any) -> Any:
        return [guess_texts(texts)] if isinstance(texts, str) else texts

    @model_validator(mode="after")
    def _one_amount(self) -> SpeakSource:
        if self.utterances is not None and self.minutes is not None:
            raise ValueError("give `utterances` or `minutes`, not both")
        return self

    @property
    def described(self) -> str:
        """What a model card says of it."""
        return f"synthetic speech of {', '.join(dict.fromkeys(voices.title for voices in self._present))}"

    @property
    def needs_transcripts(self) -> bool:
        """Whether the transcripts of other sources are needed."""
        return any(isinstance(texts, TranscriptTexts) for texts in self.texts)

    @property
    def repeats(self) -> bool:
        """Whether all texts are the words of other sources."""
        return all(isinstance(texts, TranscriptTexts) for texts in self.texts)

    def drafts(self, told: Told | None = None) -> Iterator[Draft]:
        """One draft per utterance, whose address says all of it; nothing is spoken yet.

        Args:
            told: what the other sources of the recipe say.

        Raises:
            SourceError: there are no texts.
            SpiritLMError: an engine is not installed.
        """
        told = told or Told(self.language or "en")
        language = self.language or told.language
        for entry in self._present:
            entry.check()
        seconds = 0.0
        for number, (utterance, voices, label) in enumerate(self._utterances(told, language)):
            length = voices.seconds(utterance)
            if self._is_enough(number, seconds + length):
                break
            seconds += length
            file = File(f"{number:07d}", utterance.uri, int(length * _BYTES), sha256=utterance.digest)
            speaker = f"{utterance.engine}:{utterance.voice}"
            yield Draft(file.path, file.uri, file, utterance.text, speaker, language, label=label)
        note(f"{number} utterances, about {seconds / 60:.0f} minutes, are synthetic speech")

    @property
    def _present(self) -> list[Voices]:
        return [voices for voices in self.voices if voices.optional != "absent"]

    def _is_enough(self, number: int, seconds: float) -> bool:
        if self.minutes is not None:
            return seconds > 60 * self.minutes
        return number >= (self.utterances or _UTTERANCES)

    def _utterances(self, told: Told, language: str) -> Iterator[tuple[Utterance, Voices, str | None]]:
        """Utterances without an end. Who says a text depends on the text, and on how often it was said before."""
        choice: Choice[Voices] = Choice({voices.name: (voices, voices.weight) for voices in self._present})
        said: Counter[str] = Counter()
        for text, label in self._texts(told):
            draw = Draw(f"speak {self.seed}").at(text, said[text])
            said[text] += 1
            voices = choice.pick(draw.at("voices"))
            spoken = voices.utterance(text, language, draw)
            settings = {**spoken.settings, **self.sound.settings(draw)}
            yield Utterance(spoken.engine, spoken.voice, text, settings), voices, label

    def _texts(self, told: Told) -> Iterator[Made]:
        makers = {texts.model_dump_json(exclude={"weight"}): (texts.maker(told), texts.weight) for texts in self.texts}
        choice = Choice({name: (name, weight) for name, (_, weight) in makers.items()})
        made: Counter[str] = Counter()
        silent = 0
        for number in itertools.count():
            draw = Draw(f"text {self.seed}").at(number)
            name = choice.pick(draw.at("texts"))
            text = makers[name][0](draw, made[name])
            made[name] += 1
            silent = 0 if text and text[0] else silent + 1
            if text and text[0]:
                yield text
            elif silent == _SILENT:
                raise SourceError("source speak: its texts are all empty, or said by held-out recordings")
