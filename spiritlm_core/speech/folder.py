"""The folder of a speech tokenizer: one folder for each model, and ``config.json``, which says what they are.

``config.json`` holds the roles of the models that are there, the family and layer of the encoder, the number and rate
of the units of each stream, and the precision with which units are extracted. What was written before it said so much
is read as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from spiritlm_core.config import sentence_of
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import new_folder, write_json
from spiritlm_core.speech.encoders.registry import family_name
from spiritlm_core.speech.grid import RATES_HZ, SAMPLE_RATE
from spiritlm_core.speech.pitch.config import PitchArchitecture
from spiritlm_core.speech.quantizers.quantizer import load_quantizer
from spiritlm_core.speech.settings import ExtractionPrecision
from spiritlm_core.speech.vocoder.config import VocoderConfig

UNIT_ROLES = ("hubert", "quantizer", "pitch", "style")
"""What makes units of waveforms; ``hubert`` is the encoder, whatever its family."""

VOCODER = "vocoder"
ROLES = (*UNIT_ROLES, VOCODER)
CONFIG = "config.json"
_FORMAT = 1
_LEFT_OUT = shutil.ignore_patterns("iterations", "tensorboard", ".artifact")


class SpeechTokenizerError(SpiritLMError):
    """A speech tokenizer folder cannot be written, or what was written does not work."""


class _Record(BaseModel):
    """What of ``config.json`` its reader needs."""

    models: tuple[str, ...] = ()
    precision: ExtractionPrecision = "exact"


@dataclass(frozen=True)
class TokenizerFolder:
    """A speech tokenizer as it lies on disk."""

    path: Path  # the folder with one folder per model
    precision: ExtractionPrecision  # with which it was made to be used; exact where nothing is said
    _said: tuple[str, ...]

    @classmethod
    def read(cls, root: Path) -> TokenizerFolder:
        """The speech tokenizer in `root`, or in the ``speech_tokenizer`` of a published model.

        Raises ModelReferenceError: there is no such folder, or its ``config.json`` is damaged.
        """
        if not root.is_dir():
            raise ModelReferenceError(f"{root} is not a folder: name that of a model, or of a speech tokenizer")
        path = root / "speech_tokenizer" if (root / "speech_tokenizer").is_dir() else root
        config = path / CONFIG
        try:
            record = _Record.model_validate_json(config.read_bytes()) if config.exists() else _Record()
        except (OSError, ValidationError) as error:
            raise ModelReferenceError(
                f"{config}: not the configuration of a speech tokenizer: {sentence_of(error)}"
            ) from error
        return cls(path, record.precision, record.models)

    def models(self, variant: str | None = None) -> dict[str, Path]:
        """Role → folder of the models that units of a variant (all there are, if not given) are made with.

        Raises ModelReferenceError: one is missing.
        """
        there = [role for role in UNIT_ROLES if (self.path / role).exists()]
        expected = UNIT_ROLES[: 2 if variant == "base" else 4] if variant else (*UNIT_ROLES[:2], *self._said)
        wanted = [role for role in UNIT_ROLES if role in expected or (variant is None and role in there)]
        if missing := [role for role in wanted if role not in there]:
            what = f"which {variant} units need" if variant else "so it is not a whole speech tokenizer folder"
            raise ModelReferenceError(f"{self.path} has no {' and no '.join(missing)} model, {what}")
        return {role: self.path / role for role in wanted}

    @property
    def vocoder(self) -> Path | None:
        """The folder of the vocoder, where there is one."""
        return self.path / VOCODER if (self.path / VOCODER).is_dir() else None

    @property
    def speakable(self) -> dict[str, int]:
        """Number of units of each stream that comes out of these models, and that the vocoder knows, if there is one.

        Raises ModelReferenceError: a model is damaged.
        """
        sizes = unit_counts(self.path)
        return sizes if self.vocoder is None else common_sizes(sizes, VocoderConfig.read(self.vocoder).sizes)


def unit_counts(folder: Path) -> dict[str, int]:
    """Number of units of each stream, as the models in `folder` have them, one folder per role.

    Raises ModelReferenceError: a model is damaged.
    """
    from spiritlm_core.speech.style.coder import count_styles

    counts: dict[str, tuple[str, Callable[[Path], int]]] = {
        "hubert": ("quantizer", lambda model: load_quantizer(model).size),
        "pitch": ("pitch", lambda model: PitchArchitecture.read(model).codes),
        "style": ("style", count_styles),
    }
    return {stream: count(folder / role) for stream, (role, count) in counts.items() if (folder / role).is_dir()}


def common_sizes(heard: Mapping[str, int], spoken: Mapping[str, int]) -> dict[str, int]:
    """Units of each stream that is heard that can be spoken, too; a vocoder passes over streams that it is not told."""
    return {stream: min(size, spoken.get(stream, size)) for stream, size in heard.items()}


def write_speech_tokenizer(folder: Path, models: Mapping[str, Path], precision: ExtractionPrecision = "exact") -> None:
    """Copy the models into `folder`, one folder per role, beside a ``config.json`` that is written last.

    Other files in it stay, and roles that a speech tokenizer does not have are passed over. The `precision` is that
    with which the units of the corpus were extracted, and those of others will be.

    Raises ModelReferenceError: encoder or quantizer are missing, or a model cannot be read.
    """
    for role in ROLES:
        if role in models:
            copy_model(models[role], folder / role)
    write_config(folder, precision=precision)


def write_config(folder: Path, **more: Any) -> None:
    """Write ``config.json`` for the models in `folder`, and what `more` there is to say of them.

    Raises ModelReferenceError: encoder or quantizer are missing, or a model cannot be read.
    """
    quantizer = load_quantizer(folder / "quantizer")
    rates = RATES_HZ | {"hubert": SAMPLE_RATE / quantizer.hop}
    record = {
        "format": _FORMAT,
        "sample_rate": SAMPLE_RATE,
        "models": [role for role in ROLES if (folder / role).exists()],
        "encoder": {"family": family_name(folder / "hubert"), "layer": quantizer.layer},
        "streams": {name: {"classes": size, "hertz": rates[name]} for name, size in unit_counts(folder).items()},
    }
    write_json(folder / CONFIG, record | more)


def copy_model(source: Path, target: Path) -> None:
    """Copy a model's folder or single file into the folder `target`, contents only: no links, no permissions."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=_LEFT_OUT)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / source.name)


def check_target(folder: Path) -> None:
    """Make sure that a speech tokenizer may be put at `folder`.

    Raises SpeechTokenizerError: something else is there.
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

    Raises SpeechTokenizerError: something else than a speech tokenizer is at `folder`.
    """
    check_target(folder)
    with new_folder(folder) as fresh:
        shutil.copytree(source, fresh, copy_function=shutil.copyfile)
