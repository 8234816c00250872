"""Loading a model and its prompt format from whatever folder it lies in."""

from __future__ import annotations

from pathlib import Path

import torch

from spiritlm_core.cores import pick_device
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.formats import PromptFormat, StringFormat, WordFormat
from spiritlm_core.lm.model.folder import is_own, locate
from spiritlm_core.lm.model.network import CausalLM, load_pretrained
from spiritlm_core.lm.model.released import ReleasedLanguageModel, speech_tokenizer_root
from spiritlm_core.speech.released.layout import Variant
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.text import TextTokenizer


def load(
    path: Path, device: str | None = None, dtype: torch.dtype | str | None = None, variant: str | None = None
) -> tuple[CausalLM, PromptFormat, Path | None]:
    """A model on its device, its prompt format, and the folder of a speech tokenizer if one lies beside it.

    See :meth:`spiritlm_core.lm.generate.spirit.SpiritLM.from_pretrained` for the arguments. Raises ModelReferenceError:
    there is no model, or one of its parts cannot be loaded.
    """
    folder, wanted = locate(path, variant)
    weights = _dtype(dtype)
    where = device or pick_device()
    model, layout, beside = _own(folder, weights, wanted) if is_own(folder) else _released(folder, weights, wanted)
    try:
        return model.to(where).eval(), layout, beside
    except (RuntimeError, AssertionError) as error:
        raise SpiritLMError(f"device {where!r} cannot be used: {error}") from error


def _own(path: Path, dtype: torch.dtype | None, variant: Variant | None) -> tuple[CausalLM, PromptFormat, Path | None]:
    vocabulary = load_vocabulary(path)
    if variant is not None and variant != ("expressive" if vocabulary.pitch else "base"):
        raise ModelReferenceError(f"{path} is not {variant}: its vocabulary has {vocabulary.pitch} pitch units")
    layout = WordFormat(TextTokenizer.load(path), vocabulary)
    model = load_pretrained(path, dtype=dtype or torch.float32)
    rows = int(model.get_output_embeddings().weight.shape[0])
    if rows < vocabulary.size:
        raise ModelReferenceError(f"{path}: the model has {rows} rows, but its vocabulary has {vocabulary.size} tokens")
    return model, layout, path if (path / "speech_tokenizer").is_dir() else None


def _released(
    folder: Path, dtype: torch.dtype | None, variant: Variant | None
) -> tuple[CausalLM, PromptFormat, Path | None]:
    released = ReleasedLanguageModel.load(folder, dtype or torch.bfloat16, variant)
    return released.model, StringFormat(released.tokenizer, released.vocabulary), speech_tokenizer_root(folder)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    known = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(known, torch.dtype) and known.is_floating_point):
        raise SpiritLMError(f"dtype is float32, bfloat16 or float16, not {dtype}")
    return known
