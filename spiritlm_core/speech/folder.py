"""The models of the speech units together in one folder, as `SpeechTokenizer.from_pretrained` loads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import TypeAdapter

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import write_json
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.config import FRAME, ExtractionPrecision, UnitsStageConfig

ROLES = ("hubert", "quantizer", "pitch", "style", "vocoder")
RATES_HZ = {"hubert": 25.0, "pitch": 12.5, "style": 1.0}
CONFIG = "config.json"
_FORMAT = 1
_LEFT_OUT = shutil.ignore_patterns("iterations", "tensorboard", ".artifact")


class SpeechTokenizerError(SpiritLMError):
    """A speech tokenizer folder cannot be written, or what was written does not work."""


class SpeechTokenizerStage(ArtifactStage):
    """Puts the fitted (or given) unit models into one folder.

    Roles: hubert and quantizer; for Expressive pitch and style, too. A given HuBERT is copied in.
    """

    name: ClassVar[str] = "speech_tokenizer"
    about: ClassVar[str] = "the unit models in one folder"
    version: ClassVar[int] = 1
    outputs: ClassVar[tuple[Output, ...]] = (Output("speech_tokenizer", path="speech_tokenizer"),)
    inputs: ClassVar[tuple[TableInput, ...]] = ()
    config: UnitsStageConfig

    def build(  # the contract of stages; nothing here reads tables or is worth resuming
        self,
        tables: Mapping[str, TableView],  # noqa: ARG002
        out: Path,
        work: Path,  # noqa: ARG002
        progress: Progress,
    ) -> dict[str, Any]:
        """Write the folder, load it back and try it.

        Returns:
            Units of each stream, and the folder's size in bytes.

        Raises:
            SpeechTokenizerError: the folder gives units that it should not.
            ModelReferenceError: a model is missing or cannot be loaded.
        """
        progress(0.0, "copying the models")
        sizes = self.config.sizes
        write_speech_tokenizer(out, self.models, sizes, self.config.precision)
        progress(0.4, "loading the folder back")
        try_speech_tokenizer(out, sizes)
        return {"streams": sizes, "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file())}


class SpeakingTokenizerStage(SpeechTokenizerStage):
    """The same with a vocoder, in the role of that name."""

    name: ClassVar[str] = "speaking_tokenizer"
    about: ClassVar[str] = "the unit models and the vocoder in one folder"
    outputs: ClassVar[tuple[Output, ...]] = (Output("speech_tokenizer", path="speaking_tokenizer"),)


def write_speech_tokenizer(
    folder: Path, models: Mapping[str, Path], sizes: Mapping[str, int], precision: ExtractionPrecision = "exact"
) -> None:
    """Copy the models into `folder`, one folder per role, beside a ``config.json`` that is written last.

    Args:
        folder: where to write; other files in it stay.
        models: role → local folder or file; roles that a speech tokenizer does not have are passed over.
        sizes: stream → number of units (``hubert``, ``pitch``, ``style``); 0 for a stream that there is not.
        precision: with which the units of the corpus were extracted, and those of others will be.
    """
    present = [role for role in ROLES if role in models]
    folder.mkdir(parents=True, exist_ok=True)
    for role in present:
        copy_model(models[role], folder / role)
    record = {
        "format": _FORMAT,
        "sample_rate": SAMPLE_RATE,
        "precision": precision,
        "models": present,
        "streams": {name: {"classes": size, "hertz": RATES_HZ[name]} for name, size in sizes.items() if size},
    }
    write_json(folder / CONFIG, record)


def precision_of(folder: Path) -> ExtractionPrecision:
    """With which the speech tokenizer in `folder` was made to be used: what its ``config.json`` says, else exact.

    Raises:
        ModelReferenceError: the file is damaged.
    """
    if not (folder / CONFIG).exists():
        return "exact"
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("precision", "exact")
        return TypeAdapter(ExtractionPrecision).validate_python(said)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelReferenceError(f"{folder / CONFIG}: not the configuration of a speech tokenizer: {error}") from error


def try_speech_tokenizer(folder: Path, sizes: Mapping[str, int]) -> None:
    """Load the folder, encode two seconds of noise, check every stream, and where there is a vocoder make a waveform.

    Raises:
        SpeechTokenizerError: a stream is missing, too many, empty, or has a unit too high; or the waveform is not as
            long as its units, or not finite.
        ModelReferenceError: a model is missing or cannot be loaded.
    """
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    tokenizer = SpeechTokenizer.from_pretrained(folder)
    units = tokenizer.encode(noise, SAMPLE_RATE)
    for name in RATES_HZ:
        size, stream = sizes.get(name, 0), getattr(units, name)
        if (stream is None) != (size == 0):
            raise SpeechTokenizerError(f"{folder} has {'no' if stream is None else 'unwanted'} {name} units")
        if stream is not None and (len(stream) == 0 or stream.max() >= size):
            raise SpeechTokenizerError(f"{folder} gives {name} units up to {stream.max(initial=-1)}, not below {size}")
    if tokenizer.has_vocoder:
        waveform = tokenizer.decode(units, predict_durations=False)
        if len(waveform) != FRAME * len(units.hubert) or not np.isfinite(waveform).all():
            raise SpeechTokenizerError(f"{folder}/vocoder makes no usable waveform: its training diverged")


def copy_model(source: Path, target: Path) -> None:
    """Copy a model's folder or single file into the folder `target`, contents only: no links, no permissions."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=_LEFT_OUT)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / source.name)


def check_target(folder: Path) -> None:
    """Make sure that a speech tokenizer may be put at `folder`.

    Raises:
        SpeechTokenizerError: something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = "streams" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise SpeechTokenizerError(f"{folder} exists and is no speech tokenizer: name another folder with --out")


def put_speech_tokenizer(source: Path, folder: Path) -> None:
    """Put a copy of the speech tokenizer `source` at `folder`, whole or not at all; an older one there is replaced.

    Raises:
        SpeechTokenizerError: something else than a speech tokenizer is at `folder`.
    """
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(source, fresh, copy_function=shutil.copyfile)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
