"""Reading encoders from Hugging Face folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.references.weights import check_weights


def configuration(model_class: str, folder: Path) -> Any:
    """The configuration of the `transformers` model of that name in `folder`.

    Raises:
        ModelReferenceError: It cannot be read.
    """
    import transformers

    try:
        return getattr(transformers, model_class).config_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ModelReferenceError(f"{folder} is not a Hugging Face model folder: {error}") from error


def pretrained(model_class: str, folder: Path, config: Any, spare: Sequence[str] = (), **options: Any) -> Any:
    """The `transformers` model of that name in `folder`, in float32.

    Args:
        model_class: Such as ``HubertModel``.
        folder: Where it lies.
        config: What is built; weights beyond it are left unread.
        spare: Weights that may be missing.
        options: More for ``from_pretrained``.

    Raises:
        ModelReferenceError: Weights are damaged, missing, or do not fit `config`.
    """
    import torch
    import transformers

    check_weights(folder)
    options |= {"config": config, "local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
    try:
        with quiet_loading():
            model, report = getattr(transformers, model_class).from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelReferenceError(f"{folder} holds no {model_class}: {error}") from error
    if missing := sorted(set(report["missing_keys"]) - set(spare)):
        raise ModelReferenceError(f"{folder} lacks weights of a {model_class}: {', '.join(missing[:5])}")
    return model


def preprocessor(folder: Path) -> dict[str, Any]:
    """What ``preprocessor_config.json`` says, if there is one.

    Raises:
        ModelReferenceError: The model wants another sampling rate than 16 kHz.
    """
    path = folder / "preprocessor_config.json"
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    if settings.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise ModelReferenceError(f"{folder} wants {settings['sampling_rate']} Hz, the lake holds {SAMPLE_RATE} Hz")
    return settings


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' report about weights: blocks left out on purpose, missing ones that are an error here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
