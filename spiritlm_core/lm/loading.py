"""Loading a model and its prompt format from whatever folder it lies in."""

from __future__ import annotations

from pathlib import Path

import torch

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.formats import PromptFormat, StringFormat, WordFormat
from spiritlm_core.lm.model import CausalLM, load_pretrained
from spiritlm_core.released.language_model import ReleasedLanguageModel, find, speech_tokenizer_root
from spiritlm_core.released.layout import Variant, checked_variant, default_root
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary

_NAMES = {f"spirit-lm-{name}-7b": checked_variant(name) for name in ("base", "expressive")}


def load(
    path: Path, device: str | None = None, dtype: torch.dtype | str | None = None, variant: str | None = None
) -> tuple[CausalLM, PromptFormat, Path | None]:
    """A model on its device, its prompt format, and the folder of a speech tokenizer if one lies beside it.

    Args:
        path: a folder of this project, of a released model, the root of the released checkpoints, or the bare name
            of a released model below ``$SPIRITLM_CHECKPOINTS_DIR``.
        device: where the model runs; a GPU if there is one.
        dtype: of the weights; by default bfloat16 for released models, else float32.
        variant: which it must be.

    Raises:
        ModelReferenceError: there is no model, or one of its parts cannot be loaded.
    """
    wanted = None if variant is None else checked_variant(variant)
    weights = _dtype(dtype)
    if str(path) in _NAMES and not path.exists():
        path, wanted = default_root(), wanted or _NAMES[str(path)]
    if not path.is_dir():
        raise ModelReferenceError(f"{path} is not a folder: name the folder of a model")
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, layout, beside = _own(path, weights, wanted) if _is_own(path) else _released(path, weights, wanted)
    try:
        return model.to(where).eval(), layout, beside
    except (RuntimeError, AssertionError) as error:
        raise SpiritLMError(f"device {where!r} cannot be used: {error}") from error


def _is_own(path: Path) -> bool:
    return (path / VOCABULARY_FILE).exists()


def _own(path: Path, dtype: torch.dtype | None, variant: Variant | None) -> tuple[CausalLM, PromptFormat, Path | None]:
    vocabulary = load_vocabulary(path)
    if variant is not None and variant != ("expressive" if vocabulary.pitch else "base"):
        raise ModelReferenceError(f"{path} is not {variant}: its vocabulary has {vocabulary.pitch} pitch units")
    layout = WordFormat(TextTokenizer.load(path), vocabulary)
    model = load_pretrained(path, dtype=dtype or torch.float32)
    _check_rows(path, model, vocabulary)
    return model, layout, path if (path / "speech_tokenizer").is_dir() else None


def _released(
    path: Path, dtype: torch.dtype | None, variant: Variant | None
) -> tuple[CausalLM, PromptFormat, Path | None]:
    folder = find(path, variant)
    if folder is None:
        raise ModelReferenceError(
            f"{path} is not the folder of a model: it has neither {VOCABULARY_FILE} (our models) "
            "nor config.json and tokenizer.model, or spiritlm_model/spirit-lm-…-7b (the released ones)"
        )
    found = ReleasedLanguageModel.load(folder, dtype or torch.bfloat16, variant)
    return found.model, StringFormat(found.tokenizer, found.vocabulary), speech_tokenizer_root(folder)


def _check_rows(path: Path, model: CausalLM, vocabulary: Vocabulary) -> None:
    rows = int(model.get_output_embeddings().weight.shape[0])
    if rows < vocabulary.size:
        raise ModelReferenceError(f"{path}: the model has {rows} rows, but its vocabulary has {vocabulary.size} tokens")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise SpiritLMError(f"dtype is float32, bfloat16 or float16, not {dtype}")
    return found
