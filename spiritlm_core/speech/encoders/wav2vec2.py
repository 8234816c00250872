"""wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477), XLS-R and MMS among them."""

from __future__ import annotations

from typing import ClassVar

from spiritlm_core.speech.encoders.waveform import WaveformEncoder


class Wav2Vec2Encoder(WaveformEncoder):
    """A `transformers.Wav2Vec2Model`. Its middle layers know phones best (Pasad et al. 2021, arXiv 2107.04734)."""

    model_class: ClassVar[str] = "Wav2Vec2Model"
    usual_layer: ClassVar[float] = 0.6
