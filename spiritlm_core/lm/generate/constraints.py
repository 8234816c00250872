"""What may be sampled for an answer of one modality, as masks and as a logits processor of transformers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from transformers import LogitsProcessor

from spiritlm_core.lm.generate.prompts import Modality
from spiritlm_core.tokens.vocabulary import Vocabulary


def forbidden_ids(vocabulary: Vocabulary, modality: Modality) -> list[int]:
    """The ids that do not belong to an answer of a modality, ascending, as the released models define them.

    Text forbids the markers and all speech tokens, speech all text tokens and the markers, ``any`` nothing. EOS is
    in the list for speech, but :func:`banned_ids` never bans it, nor does the released code.
    """
    first = {"text": vocabulary.text_size, "speech": 0, "any": vocabulary.size}[modality]
    last = vocabulary.speech_marker + 1 if modality == "speech" else vocabulary.size
    return list(range(first, last))


def banned_ids(
    vocabulary: Vocabulary,
    modality: Modality,
    rows: int,
    ends: Collection[int] = (),
    *,
    force: bool = True,
    lacking: Collection[int] = (),
) -> torch.Tensor:
    """What is never sampled: bool[rows], for the rows of the output embedding.

    BOS and the rows from ``vocabulary.size`` on, which are padding, are always banned. The ids in `ends` and EOS end
    the answer, and are allowed in any modality. Without `force` nothing is banned for the sake of the modality. The ids
    `lacking` are those of units that nobody could make heard.
    """
    banned = torch.zeros(rows, dtype=torch.bool)
    banned[[*lacking]] = True
    if force:
        banned[forbidden_ids(vocabulary, modality)] = True
    if vocabulary.bos is not None:
        banned[vocabulary.bos] = True
    banned[[*ends, *([] if vocabulary.eos is None else [vocabulary.eos])]] = False
    banned[vocabulary.size :] = True
    return banned


class ModalityLogitsProcessor(LogitsProcessor):
    """Keeps generation in one modality; for ``model.generate(logits_processor=[…])`` as well as for our own loop."""

    def __init__(self, banned: torch.Tensor) -> None:
        """`banned` is bool[rows], see :func:`banned_ids`."""
        self.banned = banned

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        modality: Modality,
        rows: int,
        ends: Collection[int] = (),
        *,
        force: bool = True,
        lacking: Collection[int] = (),
    ) -> ModalityLogitsProcessor:
        """The processor that bans what :func:`banned_ids` says."""
        return cls(banned_ids(vocabulary, modality, rows, ends, force=force, lacking=lacking))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        """Logits float[batch, rows] with those of banned ids at minus infinity; what went before does not matter."""
        del input_ids
        if self.banned.device != scores.device:
            self.banned = self.banned.to(scores.device)
        return scores.masked_fill(self.banned, -torch.inf)
