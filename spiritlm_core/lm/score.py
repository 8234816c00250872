"""Losses of a model on packed sequences, per stream and per kind of token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from spiritlm_core.lm.data import IGNORED, Batch
from spiritlm_core.lm.model import CausalLM
from spiritlm_core.lm.train import token_losses
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
    model.eval()
    device = next(model.parameters()).device
    nats, codes, speech = [], [], []
    for batch in _batches(packed, vocabulary.size, batch_size):
        moved = batch.to(device)
        losses = token_losses(model, moved).cpu()
        predicted = batch.targets != IGNORED
        nats.append(losses[predicted].double().numpy())
        codes.append(batch.streams[predicted].numpy())
        speech.append(vocabulary.is_speech(batch.targets[predicted].numpy()))
    return _by_stream(*(np.concatenate(parts) if parts else np.empty(0) for parts in (nats, codes, speech)))


def _batches(packed: Iterable[Packed], size: int, count: int) -> Iterable[Batch]:
    held: list[Packed] = []
    for item in packed:
        held.append(item)
        if len(held) == count:
            yield Batch.of(held, size)
            held = []
    if held:
        yield Batch.of(held, size)


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
