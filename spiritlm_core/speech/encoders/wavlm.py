"""WavLM (Chen et al. 2021, arXiv 2110.13900): HuBERT with gated relative positions in its attention."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from spiritlm_core.speech.encoders.precision import convert_linears
from spiritlm_core.speech.encoders.waveform import WaveformEncoder


class WavLMEncoder(WaveformEncoder):
    """A `transformers.WavLMModel`."""

    model_class: ClassVar[str] = "WavLMModel"

    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Outputs of the blocks; the first one makes the relative positions that all of them use."""
        hidden, positions = self._placed(frames), None
        for block in self._encoder.layers:
            with warnings.catch_warnings():  # torch wants mask and positions of one type, transformers gives two
                warnings.simplefilter("ignore", UserWarning)
                hidden, positions = block(hidden, attention_mask=mask, position_bias=positions)[:2]
            yield hidden

    def _convert(self, blocks: nn.ModuleList) -> None:
        """The feed-forward products alone: torch computes the attention from its weights as they are."""
        for block in blocks:
            convert_linears(block.feed_forward, self.kind)  # type: ignore[arg-type]
