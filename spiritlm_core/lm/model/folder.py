"""The folder of a model, found and looked over in a moment: nothing heavy is imported for one that is not there."""

from pathlib import Path

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.content import check_weights
from spiritlm_core.references.reference import local_path
from spiritlm_core.speech.released.layout import Variant, checked_variant, default_root, find_language_model
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE

_NAMES = {f"spirit-lm-{name}-7b": checked_variant(name) for name in ("base", "expressive")}


def locate(path: str | Path, variant: str | None = None) -> tuple[Path, Variant | None]:
    """The folder that a model is read from, and the variant that it must be.

    `path` is a folder of this project or a reference of one (``hf://…``), of a released model, the root of the
    released checkpoints, or the bare name of a released model below ``$SPIRITLM_CHECKPOINTS_DIR``.

    Raises ModelReferenceError: there is no model, or a file of it is missing or cut short.
    """
    folder = local_path(path)
    wanted = None if variant is None else checked_variant(variant)
    if str(folder) in _NAMES and not folder.exists():
        folder, wanted = default_root(), wanted or _NAMES[str(folder)]
    if not folder.is_dir():
        raise ModelReferenceError(f"{folder} is not a folder: name the folder of a model")
    if is_own(folder):
        check_weights(folder)
        return folder, wanted
    released = find_language_model(folder, wanted)
    if released is None:
        raise ModelReferenceError(
            f"{folder} is not the folder of a model: it has neither {VOCABULARY_FILE} (our models) "
            "nor config.json and tokenizer.model, or spiritlm_model/spirit-lm-…-7b (the released ones)"
        )
    return released, wanted


def is_own(folder: Path) -> bool:
    """Whether a model of this project lies there."""
    return (folder / VOCABULARY_FILE).exists()
