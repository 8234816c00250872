"""Asking a model: continuations as text or speech tokens, and the ids of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spiritlm_core.lm.generate.decode import generate
from spiritlm_core.lm.generate.prompts import Kind, Modality

if TYPE_CHECKING:
    from spiritlm_core.lm.formats import PromptFormat
    from spiritlm_core.lm.generate.spirit import SpiritLM


def continue_prompts(
    spirit: SpiritLM,
    prompts: Sequence[Sequence[int]],
    modality: Modality,
    most: int,
    *,
    stop: Sequence[str] = (),
    batch_size: int = 16,
) -> list[str]:
    """Greedy answers: text, or speech tokens.

    Args:
        spirit: the model.
        prompts: their token ids.
        modality: of the answers.
        most: tokens of the longest answer.
        stop: further tokens that end an answer, such as ``"[Speech]"``.
        batch_size: prompts continued at once.
    """
    stops = [spirit.layout.added[token] for token in stop]
    found = generate(
        spirit.model,
        spirit.vocabulary,
        prompts,
        modality=modality,
        max_new_tokens=most,
        stop_ids=stops,
        batch_size=batch_size,
    )
    parts = [spirit.layout.read(prompt, ids, modality) for prompt, ids in zip(prompts, found, strict=True)]
    return ["".join([segment.content for segment in segments]) for segments in parts]


def label_ids(layout: PromptFormat, label: str, *, ends: bool) -> list[int]:
    """The ids of a label as an answer, behind ``[Text]``; `ends` adds EOS, if the model has one."""
    whole = layout.prompt([("text", label)], "any")
    ids = whole[whole.index(layout.vocabulary.text_marker) + 1 :]
    eos = layout.vocabulary.eos
    return ids + ([eos] if ends and eos is not None else [])


def other(kind: Kind) -> str:
    """The marker that ends an answer of one kind where solved examples follow each other."""
    return "[Speech]" if kind == "text" else "[Text]"
