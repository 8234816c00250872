"""What the training of a language model minimises: one file and one line each.

A loss is a function ``loss(rows, head, answers, scale)``, see :class:`Loss`. It is named here, not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

LOSSES = {
    "cross_entropy": "spiritlm_core.lm.losses.cross_entropy:cross_entropy",
}
"""Name, as in the setting `lm.loss` → module and function."""


class Loss(Protocol):
    """What is minimised over the targets of a batch."""

    def __call__(
        self, rows: torch.Tensor, head: torch.Tensor | None, answers: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch.

        Args:
            rows: one for each of P targets: hidden states, float[P, H]; or logits, float[P, V], where `head` is None.
            head: the output layer, float[V, H]; None for models that do more to their logits than a matrix product.
            answers: the target of each row, int64[P].
            scale: factor of the loss.

        Returns ``scale`` times the sum over targets, float32[] with gradient; and each target's negative log-likelihood
        in nats without gradient, float32[P], which is what is reported and compared.
        """
