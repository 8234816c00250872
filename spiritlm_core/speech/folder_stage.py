"""The models of the speech units put into one folder, as one artifact, and the trial that such a folder works."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.config import UnitsStageConfig
from spiritlm_core.speech.folder import SpeechTokenizerError, write_speech_tokenizer
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.tokenizer import SpeechTokenizer


class SpeechTokenizerStage(ArtifactStage):
    """Puts the fitted (or given) unit models into one folder.

    Roles: hubert and quantizer; for Expressive pitch and style, too. A given encoder is copied in.
    """

    name: ClassVar[str] = "speech_tokenizer"
    about: ClassVar[str] = "the unit models in one folder"
    version: ClassVar[int] = 1
    outputs: ClassVar[tuple[Output, ...]] = (Output("speech_tokenizer", path="speech_tokenizer"),)
    inputs: ClassVar[tuple[TableInput, ...]] = ()
    config: UnitsStageConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Write the folder, load it back and try it.

        Returns units of each stream, and the folder's size in bytes. Raises SpeechTokenizerError: the folder gives
        units that it should not; ModelReferenceError: a model is missing or cannot be loaded.
        """
        progress(0.0, "copying the models")
        sizes = self.config.sizes
        write_speech_tokenizer(out, self.models, self.config.precision)
        progress(0.4, "loading the folder back")
        try_speech_tokenizer(out, sizes)
        return {"streams": sizes, "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file())}


class SpeakingTokenizerStage(SpeechTokenizerStage):
    """The same with a vocoder, in the role of that name."""

    name: ClassVar[str] = "speaking_tokenizer"
    about: ClassVar[str] = "the unit models and the vocoder in one folder"
    outputs: ClassVar[tuple[Output, ...]] = (Output("speech_tokenizer", path="speaking_tokenizer"),)


def try_speech_tokenizer(folder: Path, sizes: Mapping[str, int]) -> None:
    """Load the folder, encode two seconds of noise, check every stream, and where there is a vocoder make a waveform.

    Raises SpeechTokenizerError: a stream is missing, too many, empty, or has a unit too high; or the waveform is not as
    long as its units, or not finite; ModelReferenceError: a model is missing or cannot be loaded.
    """
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    tokenizer = SpeechTokenizer.from_pretrained(folder)
    units = tokenizer.encode(noise, SAMPLE_RATE)
    for name in ("hubert", "pitch", "style"):
        size, stream = sizes.get(name, 0), getattr(units, name)
        if (stream is None) != (size == 0):
            raise SpeechTokenizerError(f"{folder} has {'no' if stream is None else 'unwanted'} {name} units")
        if stream is not None and (len(stream) == 0 or stream.max() >= size):
            raise SpeechTokenizerError(f"{folder} gives {name} units up to {stream.max(initial=-1)}, not below {size}")
    if tokenizer.has_vocoder:
        waveform = tokenizer.decode(units, predict_durations=False)
        samples = FRAME * tokenizer.vocoder.config.unit_frames * len(units.hubert)
        if len(waveform) != samples or not np.isfinite(waveform).all():
            raise SpeechTokenizerError(f"{folder}/vocoder makes no usable waveform: its training diverged")
