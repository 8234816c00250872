"""What the model answers when it is asked as the commands ask it: what it heard, what it said, how it classifies.

Recordings, their resynthesis and spoken answers can be heard, and are written down by a recogniser.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.clips import Recogniser, good_rows, normalised, rank, read_clips, rows_of
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated, Utterance, count, labels_of, train_words
from spiritlm_core.evaluate.heldout.fewshot import HELD_OUT, TASKS, Classified, Task, ask, classify, questions
from spiritlm_core.fit.clips import Clip
from spiritlm_core.lake.stage import Progress
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.distances import Errors, errors, trivial_answers
from spiritlm_core.metrics.verdicts import Verdict
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
        return _errors(heard, [one.heard[name] for one in heard]) if heard else None

    def rates(self) -> dict[str, Errors]:
        """Word errors in the spoken answers, beside those of silence and of the answers to other questions."""
        spoken = [one for one in self.clips if ANSWER in one.heard and one.clip.text]
        if not spoken:
            return {}
        said = [one.heard[ANSWER] for one in spoken]
        given = {"model": said, **trivial_answers(said, (), (), 0, fixed=False)}
        return {who: _errors(spoken, texts) for who, texts in given.items()}


def _errors(clips: Sequence[Listened], written: Sequence[str]) -> Errors:
    return errors([one.clip.text or "" for one in clips], written, partial(_words, language=clips[0].clip.language))


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
    speaker = vocoder.speaker_id(clip.speaker)
    sounds = {RESYNTHESIS: vocoder.decode(_streams(row), speaker=speaker, predict_durations=False)}
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


def _words(text: str, language: str | None) -> list[str]:
    """As :func:`normalised`, each digit a word: that makes one word, 89, of "eight nine"."""
    return re.sub(r"(?<=\d)(?=\d)", " ", normalised(text, language)).split()


def _streams(row: Mapping[str, Any]) -> Streams:
    hubert, pitch, style = (None if row[name] is None else np.array(row[name]) for name in ("hubert", "pitch", "style"))
    return Streams(hubert, pitch, style)  # type: ignore[arg-type]


AS_HEARD = "word error rate in the spoken answers"
LISTENED_SECONDS = (0.5, 10.0)
KNOWN_WORDS = "all words occur in training"  # the group of recordings of which this is true


@dataclass(frozen=True)
class Answers:
    """All that was asked."""

    # speech to text and text to speech by name, without solved examples; then both with them, where asked
    tasks: Sequence[Task]
    groups: Mapping[str, Sequence[int]]  # name → places among the questions; "" is all of them
    listening: Listening  # what can be heard
    classified: Classified | None  # labels; None where there are none

    @property
    def plain(self) -> dict[str, Task]:
        """The tasks without solved examples."""
        return {task.name: task for task in self.tasks if not task.wanted}

    def verdicts(self, config: EvaluateConfig) -> list[Verdict]:
        """One for each task, each way of asking and each group of the recordings."""
        return [*self._by_task(config), *(self.classified.verdicts(*_draws(config)) if self.classified else ())]

    def _by_task(self, config: EvaluateConfig) -> Iterator[Verdict]:
        for task in self.tasks:
            if task.name == "text_to_speech" and not task.wanted and (heard := self.listening.rates()):
                about: dict[str, Any] = {"on": HELD_OUT, "beside": self._beside(RESYNTHESIS, "recordings")}
                yield Verdict.of_errors("say", AS_HEARD, heard, *_draws(config), **about)
            ceiling = self._beside("recogniser") if task.name == "speech_to_text" else {}
            for name, places in self.groups.items():
                more: dict[str, Any] = {} if name else {"beside": ceiling}
                yield task.verdict(places, *_draws(config), group=name, **more)

    def _beside(self, *names: str) -> dict[str, float]:
        """Word error rates of a recogniser: in resynthesis, else in the recordings, whatever that is called."""
        found = {name: self.listening.errors(RESYNTHESIS if name == RESYNTHESIS else RECORDING) for name in names}
        return {name: round(errors.rate, 4) for name, errors in found.items() if errors is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: every question with its answer."""
        written = {one.clip.key: dict(one.heard) for one in self.listening.clips}
        found: dict[str, Any] = {name: _rows(task, written) for name, task in self.plain.items()}
        if self.classified:
            found["classification"] = self.classified.to_dict()
        return found


def _draws(config: EvaluateConfig) -> tuple[int, int]:
    return config.bootstrap_samples, config.seed


def _rows(task: Task, written: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    errors = task.rates["model"]
    names = {"recogniser": RECORDING} if task.name == "speech_to_text" else {ANSWER: ANSWER, RESYNTHESIS: RESYNTHESIS}

    def heard(key: str) -> dict[str, str]:
        return {name: written[key][of] for name, of in names.items() if of in written.get(key, ())}

    return [
        {
            "key": question.key,
            "reference": question.text,
            "answer": task.answers[i],
            "errors": errors.edits[i],
            "length": errors.length[i],
            "heard": heard(question.key),
        }
        for i, question in enumerate(task.questions)
    ]


def ask_all(
    tables: Mapping[str, TableView],
    models: Mapping[str, Path],
    evaluated: Evaluated,
    config: EvaluateConfig,
    progress: Progress,
) -> Answers:
    """Ask held-out recordings without and with solved examples, listen to the first of them, and ask for labels.

    Roles of `models`: vocoder and recogniser, where there are any.
    """
    progress(0.4, "asking the model")
    sequences = tables["sequences"]
    questions_, pool = questions(sequences, config, evaluated.context_length)
    held_out = count(sequences, "held_out") if questions_ else 0
    ways = dict.fromkeys((0, config.shots)) if questions_ else ()
    tasks = [ask(name, questions_, pool, evaluated, config, held_out, shots) for shots in ways for name in TASKS]
    said = next((task for task in tasks if task.name == "text_to_speech"), None)
    progress(0.6, "listening to recordings, resynthesis and answers")
    listening = _listened(said, tables, models, config)
    return Answers(tasks, groups_of(questions_, tables), listening, classify(tables, evaluated, config))


def _listened(
    said: Task | None, tables: Mapping[str, TableView], models: Mapping[str, Path], config: EvaluateConfig
) -> Listening:
    """To the first that were asked; to any held-out recordings where none were."""
    from spiritlm_core.speech.vocoder.vocoder import Vocoder

    answers = {one.key: answer for one, answer in zip(said.questions, said.answers, strict=True)} if said else {}
    clips = read_clips(tables["audio"], [*answers][: config.listened] or _any(tables["audio"], config))
    return listen(
        clips,
        answers,
        rows_of(tables["units"], {clip.key for clip in clips}, ["hubert", "pitch", "style"]),
        Vocoder.load(models["vocoder"]) if "vocoder" in models else None,
        Recogniser(models["recogniser"]) if "recogniser" in models else None,
    )


def _any(audio: TableView, config: EvaluateConfig) -> list[str]:
    rows = good_rows(audio, "held_out", *LISTENED_SECONDS)
    return heapq.nsmallest(config.listened, rows, key=lambda key: rank(config.seed, key))


def groups_of(questions: Sequence[Utterance], tables: Mapping[str, TableView]) -> dict[str, list[int]]:
    """All questions under "", those with known words alone, and those of each label, where that is not all of them."""
    known, labels = train_words(tables["sequences"]), labels_of(tables["audio"], "held_out")
    groups = {KNOWN_WORDS: [i for i, one in enumerate(questions) if known.issuperset(one.words.split())]}
    for label in sorted({labels[one.key] for one in questions if one.key in labels}):
        groups[label] = [i for i, one in enumerate(questions) if labels.get(one.key) == label]
    return {"": list(range(len(questions)))} | {n: p for n, p in groups.items() if 0 < len(p) < len(questions)}
