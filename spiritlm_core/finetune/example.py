"""One solved example: filled in from a row by a template, and as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.finetune.template import Part
from spiritlm_core.lm.generate.prompts import Example, Kind, Parts, joined

if TYPE_CHECKING:
    from pathlib import Path

    from spiritlm_core.lm.generate.formats import PromptFormat, WordFormat


@dataclass(frozen=True)
class Encoded:
    """An example as token ids.

    Attributes:
        prompt: from BOS, if the model has one, to the marker that the answer follows; that of an answer whose modality
            depends on the row belongs to the answer.
        answer: up to EOS, if the model has one.
    """

    prompt: list[int]
    answer: list[int]


def fill(
    question: Sequence[Part],
    answer: Sequence[Part],
    texts: Mapping[str, str],
    speech: Mapping[str, str],
) -> Example:
    """Put a row into the parts of a template.

    Args:
        question: of the template.
        answer: of the template.
        texts: field → text.
        speech: field → speech tokens.

    Raises:
        Rejection: the row has nothing for a field, or no answer at all.
    """
    example = Example(_filled(question, texts, speech), _filled(answer, texts, speech))
    if not example.answer:
        raise Rejection("no answer: every part of it is empty")
    return example


def _filled(parts: Sequence[Part], texts: Mapping[str, str], speech: Mapping[str, str]) -> Parts:
    found: list[tuple[Kind, str]] = []
    for part in parts:
        values = speech if part.kind == "speech" else texts
        if empty := [field for field in part.fields if not values.get(field, "").strip()]:
            if part.optional:
                continue
            raise Rejection(f"nothing in {empty[0]}")
        found.append((part.kind, values[part.speech] if part.speech else str(part.text).format_map(values)))
    return joined(found)


def encode(layout: PromptFormat, example: Example, kind: Kind | None) -> Encoded:
    """The token ids of an example.

    Args:
        layout: how the model was taught to write prompts.
        example: filled in.
        kind: the modality that every answer of the task begins with, None if that depends on the row.

    Raises:
        Rejection: a token reaches from the question into the answer, or a speech token is none of the model's.
    """
    try:
        prompt = layout.prompt(example.question, kind or "any")
        whole = layout.prompt(joined([*example.question, *example.answer]), "any")
    except SpiritLMError as problem:
        raise Rejection(str(problem)) from problem
    if whole[: len(prompt)] != prompt:
        raise Rejection("a token of the text tokenizer reaches from the question into the answer")
    eos = layout.vocabulary.eos
    return Encoded(prompt, whole[len(prompt) :] + ([] if eos is None else [eos]))


def context_of(base: Path) -> int | None:
    """The longest sequence that a model takes, in tokens, as its ``config.json`` says; None if it says nothing."""
    from spiritlm_core.files import read_json

    path = base / "config.json"
    values = read_json(path) if path.is_file() else {}
    return values.get("max_position_embeddings", values.get("n_positions"))


def load_layout(base: Path) -> WordFormat:
    """The prompt format of a model of this project, without its weights.

    Raises:
        ModelReferenceError: `base` is none.
    """
    from spiritlm_core.lm.generate.formats import WordFormat
    from spiritlm_core.tokens.hf import load_vocabulary
    from spiritlm_core.tokens.text import TextTokenizer
    from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE

    if not (base / VOCABULARY_FILE).is_file():
        raise ModelReferenceError(
            f"{base} has no {VOCABULARY_FILE}: fine-tuning starts from a model that was trained here; "
            "to teach speech to a text model, name it as lm.base of a recipe for `spiritlm run`"
        )
    return WordFormat(TextTokenizer.load(base), load_vocabulary(base))
