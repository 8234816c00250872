"""Embeddings of units that start where the quantizer's clusters lie: units that sound alike start alike."""

from __future__ import annotations

from pathlib import Path

import torch

from spiritlm_core.speech.quantizers.quantizer import load_quantizer


@torch.no_grad()
def start_from_centres(table: torch.Tensor, quantizer: Path) -> None:
    """Put rows where the centres lie along their first principal axes; units that the quantizer lacks stay.

    With c the centres less their mean and V their principal axes, as many as a row has entries, row k is
    ``c[k] @ V / s``; s makes the entries spread by 1, as if they had been drawn. Axes that the centres lack are 0.

    Args:
        table: float32[units, embedding], changed in place.
        quantizer: its folder.

    Raises:
        ModelReferenceError: the quantizer cannot be loaded.
    """
    centres = torch.from_numpy(load_quantizer(quantizer).unit_vectors)[: len(table)].double()
    centred = centres - centres.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: table.shape[1]]
    placed = centred @ axes.T
    table[: len(placed)] = 0
    table[: len(placed), : len(axes)] = (placed / placed.std().clamp(min=1e-8)).to(table)
