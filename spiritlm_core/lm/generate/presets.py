"""Tasks by prompt: transcribing, speaking, choosing a label, each with solved examples of the user's in front.

The prompts are those of the paper's few-shot tasks (Spirit LM, arXiv 2402.05755, section 4.2). The commands,
the HTTP interface and the web page all ask a model by way of this module.
"""

from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.audio.waveform import as_waveform, is_silent
from spiritlm_core.errors import Rejection, SpiritLMError
from spiritlm_core.lm.generate.content import (
    NOTHING_SAID,
    Answer,
    Content,
    Input,
    Prompt,
    Segment,
    Speech,
    Text,
    contents,
)
from spiritlm_core.lm.generate.fewshot import Judged, judged, log_likelihoods
from spiritlm_core.lm.generate.prompts import Modality, turns
from spiritlm_core.lm.generate.spirit import Generation, SpiritLM
from spiritlm_core.speech.grid import FRAME, SHORTEST

Task = Literal["free", "asr", "tts"]
Shots = Sequence[tuple[Input | Iterable[Input], Input | Iterable[Input]]]
"""Solved examples: pairs of a question and its answer."""


OUTPUTS: dict[Task, Modality] = {"free": "any", "asr": "text", "tts": "speech"}
"""Modality of the answers; where the model turns to the other one, an answer is over."""


HEARINGS = 4
"""How often a recording is heard: its units depend on where frames begin, so each time a quarter of a frame later."""


@dataclass(frozen=True)
class Classification:
    """The label that a model finds most likely."""

    label: str  # that one; the first of equally likely ones
    labels: tuple[str, ...]  # all of them, in the order given
    nats: NDArray[np.float64]  # negative log-likelihood of each as the answer, float64[labels]
    empty: str | None = None  # why the label tells nothing of the recordings; None where something is heard

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each label if the answer must be one of them, float64[labels]; they sum to 1."""
        odds: NDArray[np.float64] = np.exp(self.nats.min() - self.nats)
        return odds / np.float64(odds.sum())


def ask(
    spirit: SpiritLM,
    task: Task,
    questions: Sequence[Input | Iterable[Input]],
    output: str | None = None,
    *,
    hearings: int = HEARINGS,
    **options: Any,
) -> list[Answer]:
    """Answers to several questions; questions, options and errors are those of :meth:`SpiritLM.generate_batch`.

    ``asr`` answers in text and ``tts`` in speech, both end where the model turns to the other modality; ``free`` goes
    on in `output`: text, speech, or any, the default. ``asr`` hears a recording `hearings` times, later each time, and
    gives the answer whose tokens are the likeliest on average; an empty one where nothing is said. Expressive models
    hear once, as F0 takes them long.

    Raises SpiritLMError: also where `hearings` is not 1 to 4.
    """
    settings = _options(task, options)
    if task == "asr":
        given = [one if isinstance(one, Prompt) else encoded(spirit, one) for one in questions]
        return _transcripts(spirit, given, hearings, **settings)
    return spirit.generate_batch(questions, output or OUTPUTS[task], **settings)


def _transcripts(
    spirit: SpiritLM,
    questions: Sequence[list[Content] | Prompt],
    hearings: int,
    batch_size: int = 16,
    **options: Any,
) -> list[Answer]:
    """The likeliest answer to each; a later hearing that takes more than the context is left out."""
    if not 1 <= hearings <= HEARINGS:
        raise SpiritLMError(f"hearings: a recording is heard 1 to {HEARINGS} times, not {hearings}")
    given = Generation.of_options(**options)
    asked = [number for number, question in enumerate(questions) if not _is_silent(question)]
    heard = list(product(asked, (FRAME * number // hearings for number in range(hearings))))
    later = [
        question if isinstance(question := questions[number], Prompt) else _later(question, start)
        for number, start in heard
    ]
    prompts = spirit.prompt_ids(later, "text", given.shots)
    known = zip(heard, map(tuple, prompts), strict=True)
    fits = ((number, prompt) for (number, start), prompt in known if not start or len(prompt) < spirit.context)
    wanted = list(dict.fromkeys(fits))  # what is heard as before has the same answer
    answers = spirit.answers([prompt for _, prompt in wanted], "text", given, batch_size)
    likely = _mean_log_likelihoods(spirit, answers) if len(wanted) > len(asked) else [0.0] * len(wanted)
    found: dict[int, list[tuple[float, Answer]]] = defaultdict(list)
    for (number, _), one in zip(wanted, zip(likely, answers, strict=True), strict=True):
        found[number].append(one)
    best = {number: max(several, key=itemgetter(0))[1] for number, several in found.items()}
    return [best.get(number, _UNSAID) for number in range(len(questions))]


def _mean_log_likelihoods(spirit: SpiritLM, answers: Sequence[Answer]) -> list[float]:
    """How likely each is for a token of it, in nats; what ended it is one of them."""
    known = spirit.vocabulary
    ends = {"eos": known.eos, "stop": known.speech_marker}
    ended = [(*answer.ids, *(() if (end := ends.get(answer.finish)) is None else (end,))) for answer in answers]
    sums = log_likelihoods(spirit, [Judged(one.prompt_ids, ids) for one, ids in zip(answers, ended, strict=True)])
    return [float(nats) / max(1, len(ids)) for nats, ids in zip(sums, ended, strict=True)]


def ask_stream(
    spirit: SpiritLM,
    task: Task,
    question: Input | Iterable[Input],
    output: str | None = None,
    **options: Any,
) -> Generator[Segment, None, Answer]:
    """As :func:`ask` for one question, piece by piece, heard once; see :meth:`SpiritLM.generate_stream`."""
    if task == "asr" and _is_silent(question):
        return _unsaid()
    return spirit.generate_stream(question, output or OUTPUTS[task], **_options(task, options))


def classify(
    spirit: SpiritLM, question: Input | Iterable[Input], labels: Sequence[str], shots: Shots = ()
) -> Classification:
    """The most likely of `labels` as the answer to `question`, behind solved examples.

    Labels are compared by the likelihood of all their tokens, as in ``spiritlm fewshot classification``. A recording
    is heard four times, each time a quarter of a frame later, and log-likelihoods are averaged: its units depend on
    where frames begin. Expressive models hear it once, as F0 takes them long. One that :func:`encoded` found silent has
    a label, too, which may be that of silence; `empty` then says so.

    Raises SpiritLMError: fewer than two labels, an empty one or two that are one to the model, or the prompt is longer
    than the context.
    """
    check_labels([spirit.layout.known(label) for label in labels])
    question = encoded(spirit, question)
    heard = spirit.parts([_later(question, start) for start in range(0, FRAME, FRAME // HEARINGS)], shots)
    try:
        options = [judged(spirit, parts, "text", label) for parts in heard for label in labels]
    except Rejection as problem:
        raise SpiritLMError(f"prompt and answer: {problem}: shorten it") from problem
    nats = -log_likelihoods(spirit, options).reshape(len(heard), len(labels)).mean(axis=0)
    empty = NOTHING_SAID if _is_silent(question) else None
    return Classification(labels[int(nats.argmin())], tuple(labels), nats, empty)


def _later(question: Iterable[Content], start: int) -> list[Content]:
    """Encoded recordings from sample `start` on, if they are Base and long enough; everything else as it is."""

    def later(part: Content) -> Content:
        if isinstance(part, Text) or part.units is None or part.units.pitch is not None or part.recording is None:
            return part
        waveform = part.recording[start:]
        return Speech(audio=waveform) if start and len(waveform) >= SHORTEST else part

    return [later(part) for part in question]


def check_labels(labels: Sequence[str]) -> None:
    """Whether one of them can be chosen.

    Raises SpiritLMError: fewer than two labels, an empty one, or two that are the same but for white space.
    """
    known = [" ".join(label.split()) for label in labels]
    if len(known) < 2 or not all(known):
        raise SpiritLMError("classification needs at least two labels, none of them empty")
    if twice := [label for label in known if known.count(label) > 1]:
        raise SpiritLMError(f"the label {twice[0]!r} is given twice")


def encoded(spirit: SpiritLM, inputs: Input | Iterable[Input]) -> list[Content]:
    """The parts of a prompt with units in place of recordings, so that one that cannot be read is found out alone.

    Raises SpiritLMError: a recording cannot be read or is too short, or there is no speech tokenizer.
    """
    return [_encoded(spirit, part) for part in contents(inputs)]


def encoded_shots(spirit: SpiritLM, shots: Shots) -> list[tuple[list[Content], list[Content]]]:
    """Solved examples as :func:`encoded` gives their sides, so that their recordings are encoded once."""
    return [(encoded(spirit, question), encoded(spirit, answer)) for question, answer in shots]


def prompt_length(spirit: SpiritLM, question: Input | Iterable[Input], output: str, shots: Shots = ()) -> int:
    """Tokens of the prompt. Raises SpiritLMError: it leaves no room for an answer."""
    (prompt,) = spirit.prompt_ids([question], output, shots)
    if len(prompt) >= spirit.context:
        raise SpiritLMError(
            f"prompt and answer take {len(prompt) + 1} tokens, the model's context is {spirit.context}: shorten it"
        )
    return len(prompt)


def _encoded(spirit: SpiritLM, part: Content) -> Content:
    if isinstance(part, Text) or part.audio is None:
        return part
    waveform = as_waveform(part.audio, part.sample_rate)
    units = spirit.speech_tokenizer.encode(waveform)
    if not len(units.hubert):
        raise SpiritLMError("the recording is too short: a unit of speech takes 80 ms")
    return Speech(units=units, recording=waveform)


_UNSAID = Answer((), (), (), "silence")


def _is_silent(question: Input | Iterable[Input]) -> bool:
    """Whether all of a question are encoded recordings in which nothing is said."""
    parts = question if isinstance(question, list | tuple) else [question]
    recordings = [part.recording if isinstance(part, Speech) else None for part in parts]
    return bool(parts) and all(recording is not None and is_silent(recording) for recording in recordings)


def _unsaid() -> Generator[Segment, None, Answer]:
    yield from ()
    return _UNSAID


def _options(task: Task, options: dict[str, Any]) -> dict[str, Any]:
    stop = (*options.get("stop", ()), *turns(OUTPUTS[task]))
    return {**options, "stop": stop, "transcribes": task == "asr"}
