"""Embedding rows of units that start where the quantizer's clusters lie: units that sound alike start alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.speech.quantizers.quantizer import load_quantizer
from spiritlm_core.tokens.vocabulary import Vocabulary


def start_from_centres(model: Any, vocabulary: Vocabulary, quantizer: Path | None, *, seed: int, spread: float) -> None:
    """Put the rows of [Hu] tokens where a random orthogonal map puts the centres of the units; others stay.

    With c the standardised centres and P the map (from D features to H, its rows or columns orthonormal, so that
    distances between centres are kept as far as H allows), row k is ``mean + spread * s * c[k] @ P``. Here `mean` is
    that of the text rows, and s makes the rows as long as the text rows are, less their mean.

    Args:
        model: its embedding and output layer have a row for each id.
        vocabulary: tells which rows are text, and which are units; units that the quantizer lacks stay as they are.
        quantizer: its folder.
        seed: of the map.
        spread: of the rows of the output layer; those of an embedding of its own have a spread of 1.

    Raises:
        SpiritLMError: no quantizer is given.
        ModelReferenceError: it cannot be loaded.
    """
    if quantizer is None:
        raise SpiritLMError("lm.new_token_init: centres needs the quantizer of the units, its folder as `quantizer`")
    centres = load_quantizer(quantizer).unit_vectors[: vocabulary.hubert].astype(np.float64)
    standardised = torch.from_numpy((centres - centres.mean(axis=0)) / (centres.std(axis=0) + 1e-8))
    entry, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    projection = torch.empty(standardised.shape[1], entry.shape[1], dtype=torch.float64)
    nn.init.orthogonal_(projection, generator=torch.Generator().manual_seed(seed))
    projected = standardised @ projection
    _put(output, vocabulary, projected, spread)
    if entry is not output:
        _put(entry, vocabulary, projected, 1.0)


@torch.no_grad()
def _put(table: nn.Parameter, vocabulary: Vocabulary, projected: torch.Tensor, spread: float) -> None:
    text, first = table[: vocabulary.text_size], vocabulary.unit_id("Hu", 0)
    mean = text.mean(dim=0)
    scale = (text - mean).square().sum(dim=1).mean().sqrt() / projected.square().sum(dim=1).mean().sqrt()
    table[first : first + len(projected)] = mean + spread * (scale * projected).to(table.dtype)
