"""Losses of a model on packed sequences, per stream and per kind of token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from spiritlm_core.lm.data import batches
from spiritlm_core.lm.model import CausalLM
from spiritlm_core.lm.objective import Objective
from spiritlm_core.tokens.corpus import STREAMS
from spiritlm_core.tokens.pack import Packed
from spiritlm_core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class Loss:
    """Negative log-likelihood of a set of tokens.

    Attributes:
        nats: sum over the tokens.
        tokens: how many.
    """

    nats: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token; not a number if there is none."""
        return self.nats / self.tokens if self.tokens else float("nan")


@torch.inference_mode()
def stream_losses(
    model: CausalLM, packed: Iterable[Packed], vocabulary: Vocabulary, batch_size: int = 8
) -> dict[str, Loss]:
    """Losses per stream (``text`` …) and per kind of target within it (``interleaved/speech`` …).

    Documents are scored on their own: attention stays within each, and its first token is not predicted.

    Args:
        model: a causal LM with sdpa attention.
        packed: packed sequences, all of the same length.
        vocabulary: tells text from speech; the two markers count as text.
        batch_size: sequences in a forward pass.

    Raises:
        TokenRangeError: an id is not in `vocabulary`.
    """
    objective = Objective(model, "sdpa").eval()
    device = next(model.parameters()).device
    nats, codes, speech = [], [], []
    for batch in batches(packed, vocabulary.size, batch_size):
        nats.append(objective(batch.to(device))[1].double().cpu().numpy())
        codes.append(batch.streams.numpy())
        speech.append(vocabulary.is_speech(batch.answers.numpy()))
    return _by_stream(*(np.concatenate(parts) if parts else np.empty(0) for parts in (nats, codes, speech)))


def _by_stream(nats: np.ndarray, codes: np.ndarray, speech: np.ndarray) -> dict[str, Loss]:
    found = {}
    for code, stream in enumerate(STREAMS):
        whole = codes == code
        for name, chosen in (
            (stream, whole),
            (f"{stream}/text", whole & (speech == 0)),
            (f"{stream}/speech", whole & (speech == 1)),
        ):
            if chosen.any():
                found[name] = Loss(float(nats[chosen].sum()), int(chosen.sum()))
    return found
