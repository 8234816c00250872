"""HuBERT (Hsu et al. 2021, arXiv 2106.07447): its last layers know phones best, for these are what it learns."""

from __future__ import annotations

from typing import ClassVar

from spiritlm_core.speech.encoders.waveform import WaveformEncoder


class HubertEncoder(WaveformEncoder):
    """A `transformers.HubertModel`."""

    model_class: ClassVar[str] = "HubertModel"
