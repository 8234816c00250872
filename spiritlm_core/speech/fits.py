"""The stages that fit the models of the speech units and the vocoder. What fits each is imported when it does."""

from typing import ClassVar

from spiritlm_core.fit.clips import FIT_INPUT
from spiritlm_core.fit.job import UnitFit
from spiritlm_core.lake.stage import Resources, TableInput
from spiritlm_core.speech.config import StyleConfig
from spiritlm_core.speech.pitch.config import PitchConfig
from spiritlm_core.speech.pretraining.config import HubertConfig
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from spiritlm_core.speech.vocoder.fit_config import VocoderStageConfig


class HubertFit(UnitFit):
    """Fits HuBERT by masked prediction; the artifact is an ordinary Hugging Face HubertModel folder.

    The role ``labels``, if given, is an encoder whose features are clustered into the labels of the first iteration.

    The models of earlier iterations lie beside it as ``iterations/1/`` and so on. Where torch.distributed is
    initialised, its processes share the work; their work folder must be one that all of them see.
    """

    name = "hubert"
    about = "HuBERT pre-trained on the corpus"
    version = 2
    shared: ClassVar[bool] = True
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: HubertConfig
    fitted_by = "spiritlm_core.speech.pretraining.fit_hubert:fit_hubert"


class QuantizerFit(UnitFit):
    """K-means over frames of one layer of the encoder in role ``hubert``, and perhaps the network that it teaches.

    The artifact is ``kmeans.safetensors``, or ``linear.safetensors`` where the configuration's kind is ``linear``.
    """

    name = "quantizer"
    about = "k-means over features of the encoder"
    version = 1
    config: QuantizerStageConfig
    fitted_by = "spiritlm_core.speech.quantizers.fit_quantizer:fit_quantizer"
    inputs: ClassVar[tuple[TableInput, ...]] = (
        *UnitFit.inputs,
        TableInput("words", ("utterance_id", "words"), optional=True),  # where `directions` are kept
    )


class PitchFit(UnitFit):
    """Fits the VQ-VAE of F0 and voicing; the artifact is ``config.json`` and ``model.safetensors``."""

    name = "pitch"
    about = "VQ-VAE over F0"
    version = 2
    config: PitchConfig
    fitted_by = "spiritlm_core.speech.pitch.fit:fit_pitch"


class StyleFit(UnitFit):
    """K-means over one vector per second, on a low layer of the encoder in role ``hubert`` and on prosody."""

    name = "style"
    about = "k-means over one-second style features"
    version = 2
    config: StyleConfig
    fitted_by = "spiritlm_core.speech.style.fit:fit_style_units"


class VocoderFit(UnitFit):
    """Fits a vocoder; the artifact is the folder that ``Vocoder.load`` takes.

    Roles: those that ``VocoderFitConfig.roles`` names. Where torch.distributed is initialised, its processes share the
    work; their work folder must be one that all of them see.
    """

    name = "vocoder"
    about = "units back to speech"
    version = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        FIT_INPUT,
        TableInput("units", ("utterance_id", "hubert", "pitch", "style", "reject_stage")),
    )
    shared: ClassVar[bool] = True
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: VocoderStageConfig
    fitted_by = "spiritlm_core.speech.vocoder.fit:fit_vocoder"
