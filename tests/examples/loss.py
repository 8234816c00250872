"""Cross-entropy with smoothed targets."""

import torch
from torch.nn.functional import cross_entropy


def smoothed(
    rows: torch.Tensor, head: torch.Tensor | None, answers: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy with a tenth of each target spread over all tokens (Szegedy et al. 2016, arXiv 1512.00567)."""
    logits = (rows if head is None else rows @ head.T).float()
    loss = cross_entropy(logits, answers, reduction="sum", label_smoothing=0.1)
    return loss * scale, cross_entropy(logits.detach(), answers, reduction="none")
