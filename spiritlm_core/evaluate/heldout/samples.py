"""Sample outputs of the model: speech→text, text→speech units and interleaved, as data and as short lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spiritlm_core.evaluate.heldout.fewshot import RATES, Task
from spiritlm_core.evaluate.heldout.losses import kinds

if TYPE_CHECKING:
    from spiritlm_core.evaluate.heldout.answers import Evaluated
    from spiritlm_core.tokens.documents import Document
    from spiritlm_core.tokens.vocabulary import Vocabulary

_WORDS = 3  # fewer are no good example

_TITLES = {
    "speech_to_text": "speech → text",
    "text_to_speech": "text → speech units",
    "interleaved": "interleaved continuation",
}


@dataclass(frozen=True)
class Sample:
    """One prompt, what the model made of it, and what a human said.

    Attributes:
        kind: "speech_to_text", "text_to_speech" or "interleaved".
        key: utterance_id, or recording_id of an interleaved sample.
        shots: Solved examples in front of the prompt; not part of `prompt`.
        prompt: Text, or speech tokens such as ``[Hu3][Pi7]``.
        output: The model's answer in the same notation.
        reference: What was really said or recorded there.
        text: Transcript of the utterance; empty for an interleaved sample.
        error_rate: Of the output against the reference; None for an interleaved sample.
    """

    kind: str
    key: str
    shots: int
    prompt: str
    output: str
    reference: str
    text: str
    error_rate: float | None

    @property
    def title(self) -> str:
        """The kind in words."""
        return _TITLES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "title": self.title}


def task_samples(task: Task, count: int, evaluated: Evaluated) -> list[Sample]:
    """The first `count` questions of a task, those of three words and more before others; their order is random."""
    order = sorted(range(len(task.questions)), key=lambda i: len(task.questions[i].words.split()) < _WORDS)
    return [_task_sample(task, i, evaluated) for i in order[:count]]


def _task_sample(task: Task, i: int, evaluated: Evaluated) -> Sample:
    target, errors = task.questions[i], task.rates["model"]
    speech = evaluated.speech(target.speech_ids)
    prompt, reference = (speech, target.text) if task.name == "speech_to_text" else (target.text, speech)
    return Sample(
        kind=task.name,
        key=target.key,
        shots=task.shots[i],
        prompt=prompt,
        output=task.answers[i],
        reference=reference,
        text=target.text,
        error_rate=round(errors.edits[i] / errors.length[i], 4) if errors.length[i] else None,
    )


def choose_documents(documents: Sequence[Document], count: int, vocabulary: Vocabulary) -> list[Document]:
    """The first `count` documents, those with some of both modalities before others."""

    def poor(document: Document) -> bool:
        counts = Counter(kinds(document.ids, vocabulary).tolist())
        return min(counts["text"] / _WORDS, counts["speech"] / (5 * _WORDS)) < 1

    return sorted((document for document in documents if len(document.ids) > _WORDS), key=poor)[:count]


def interleaved_sample(key: str, ids: np.ndarray, evaluated: Evaluated, most: int) -> Sample:
    """Cut one interleaved document, int[N], at the modality change nearest to its middle and let the model go on."""
    from spiritlm_core.lm.generate.decode import generate

    cut = _cut(ids, evaluated.vocabulary)
    spirit = evaluated.spirit
    (output,) = generate(spirit.model, spirit.vocabulary, [ids[:cut].tolist()], modality="any", max_new_tokens=most)
    prompt, answer, reference = (evaluated.render(part).strip() for part in (ids[:cut], output, ids[cut : cut + most]))
    return Sample("interleaved", key, 0, prompt, answer, reference, text="", error_rate=None)


def _cut(ids: np.ndarray, vocabulary: Vocabulary) -> int:
    switches = np.flatnonzero(np.isin(ids, (vocabulary.text_marker, vocabulary.speech_marker)))
    switches = switches[switches > 1]  # BOS and the first marker are no prompt
    middle = len(ids) // 2
    return int(min(switches, key=lambda at: abs(at - middle))) if len(switches) else max(middle, 1)


def lines(samples: Sequence[dict[str, Any]], width: int = 96) -> list[str]:
    """Samples (as in samples.json) as short lines for a terminal, long ones cut in the middle."""
    tags: list[str] = []
    for sample in samples:
        shots = f" ({sample['shots']} shots)" if sample["shots"] else ""
        tags.append(f"{sample['title']}{shots}")
        tags += [
            f"  {name:<10}{_short(sample[key], width)}"
            for name, key in (("prompt", "prompt"), ("model", "output"), ("reference", "reference"))
        ]
        if sample["error_rate"] is not None:
            name = RATES[sample["kind"]].replace("_", " ")
            tags.append(f"  {name}: {100 * sample['error_rate']:.0f} %")
    return tags


def _short(text: str, width: int) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())  # no control codes in a terminal
    if not text:
        return "(nothing)"
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[:half]} … {text[-half:]}"
