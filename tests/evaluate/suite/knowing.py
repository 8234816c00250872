"""A model that knows what comes next, and sound files whose speech tokens are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from spiritlm_core.evaluate.suite.task import Recordings
from spiritlm_core.lm.generate.spirit import SpiritLM


class Cache:
    """What the model was fed: all that it needs to know."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def batch_select_indices(self, kept: torch.Tensor) -> None:
        self.rows = [self.rows[i] for i in kept.tolist()]


class Knowing(nn.Module):
    """Gives the next token of each known sequence nearly all probability; behind its end, and elsewhere, EOS."""

    def __init__(self, known: Iterable[Sequence[int]], rows: int, eos: int, context: int = 512) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, 1))
        self.next = {tuple(ids[:i]): ids[i] for ids in known for i in range(1, len(ids))}
        self.rows, self.eos = rows, eos
        self.config = SimpleNamespace(max_position_embeddings=context)

    def get_output_embeddings(self) -> nn.Module:
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        **_: Any,
    ) -> SimpleNamespace:
        if attention_mask is not None and attention_mask.ndim == 4:  # which tokens each one sees, 0 or minus infinity
            return SimpleNamespace(logits=self._branches(input_ids, attention_mask[:, 0] == 0))
        before = past_key_values.rows if past_key_values else [[] for _ in input_ids]
        mask = attention_mask[:, -input_ids.shape[1] :] if use_cache and attention_mask is not None else None
        logits = torch.zeros(*input_ids.shape, self.rows)
        for row, ids in enumerate(input_ids.tolist()):
            for place, token in enumerate(ids):
                if mask is None or mask[row, place]:
                    before[row].append(token)
                logits[row, place, self.next.get(tuple(before[row]), self.eos)] = 20.0
        return SimpleNamespace(logits=logits, past_key_values=Cache(before))

    def _branches(self, input_ids: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*input_ids.shape, self.rows)
        for row, place in np.ndindex(*input_ids.shape):
            known = tuple(input_ids[row, sees[row, place]].tolist())
            logits[row, place, self.next.get(known, self.eos)] = 20.0
        return logits


def knowing(spirit: SpiritLM, known: Iterable[Sequence[int]]) -> SpiritLM:
    """`spirit` with a model that knows the sequences."""
    eos = spirit.vocabulary.eos
    assert eos is not None
    return SpiritLM(Knowing(known, spirit.vocabulary.size, eos), spirit.layout)  # type: ignore[arg-type]


class Heard(Recordings):
    """Sound files and their speech tokens."""

    def __init__(self, known: Mapping[Path, str]) -> None:
        super().__init__()
        self._tokens |= known
