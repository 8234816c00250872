"""UniSpeech encoders."""

from typing import ClassVar

from spiritlm_core.speech.encoders.waveform import WaveformEncoder


class UniSpeechEncoder(WaveformEncoder):
    """A `transformers.UniSpeechModel` (Wang et al. 2021, arXiv 2101.07597)."""

    model_class: ClassVar[str] = "UniSpeechModel"
    usual_layer: ClassVar[float] = 0.75
