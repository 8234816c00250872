"""Loading a model and its prompt format from whatever folder it lies in."""

from pathlib import Path

import torch

from spiritlm_core.cores import pick_device
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lm.generate.formats import PromptFormat, StringFormat, WordFormat
from spiritlm_core.lm.model.folder import is_own, locate
from spiritlm_core.lm.model.network import CausalLM, load_pretrained
from spiritlm_core.speech.released.layout import LANGUAGE_MODELS
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.released import ReleasedTextTokenizer
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import TEXT_MARKER, Vocabulary


def load(
    path: Path, device: str | None = None, dtype: torch.dtype | str | None = None, variant: str | None = None
) -> tuple[CausalLM, PromptFormat, Path | None]:
    """A model on its device, its prompt format, and the folder of a speech tokenizer if one lies beside it.

    See :meth:`spiritlm_core.lm.generate.spirit.SpiritLM.from_pretrained` for the arguments. Raises ModelReferenceError:
    there is no model, or one of its parts cannot be loaded.
    """
    folder, wanted = locate(path, variant)
    weights, where, own = _dtype(dtype), device or pick_device(), is_own(folder)
    layout: PromptFormat = WordFormat(TextTokenizer.load(folder), load_vocabulary(folder)) if own else _released(folder)
    vocabulary = layout.vocabulary
    if wanted is not None and wanted != ("expressive" if vocabulary.pitch else "base"):
        raise ModelReferenceError(f"{folder} is not the {wanted} model: its vocabulary has {vocabulary.pitch} [Pi…]")
    model = load_pretrained(folder, dtype=weights or (torch.float32 if own else torch.bfloat16), exact=True)
    rows = int(model.get_output_embeddings().weight.shape[0])
    if rows < vocabulary.size:
        raise ModelReferenceError(f"{folder}: the model has {rows} rows, but its vocabulary {vocabulary.size} tokens")
    try:
        return model.to(where).eval(), layout, _speech_tokenizer_root(folder)
    except (RuntimeError, AssertionError) as error:
        raise SpiritLMError(f"device {where!r} cannot be used: {error}") from error


def _released(folder: Path) -> StringFormat:
    """The prompt format of a released model, whose tokens are checked one by one.

    Raises ModelReferenceError: the tokens are not those of Spirit LM, or not in their order.
    """
    tokenizer = ReleasedTextTokenizer.load(folder)
    first = tokenizer.id_of(TEXT_MARKER)
    if first is None:
        raise ModelReferenceError(f"{folder}: its tokenizer has no {TEXT_MARKER}: this is no Spirit LM")
    sizes = {"pitch": 0, "style": 0} if tokenizer.id_of("[Pi0]") is None else {"pitch": 64, "style": 100}
    vocabulary = Vocabulary(first, hubert=501, **sizes, bos=tokenizer.bos, eos=tokenizer.eos)
    for i, token in enumerate(vocabulary.tokens, start=first):
        if (found := tokenizer.id_of(token)) != i:
            raise ModelReferenceError(f"{folder}: {token} should have id {i} in its tokenizer, not {found}")
    return StringFormat(tokenizer, vocabulary)


def _speech_tokenizer_root(folder: Path) -> Path | None:
    """The folder that holds the speech tokenizer of the language model in `folder`, if it lies where it should."""
    parent = folder.absolute().parent
    roots = [folder, parent.parent] if parent.name == LANGUAGE_MODELS else [folder]
    return next((root for root in roots if (root / "speech_tokenizer").is_dir()), None)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    known = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(known, torch.dtype) and known.is_floating_point):
        raise SpiritLMError(f"dtype is float32, bfloat16 or float16, not {dtype}")
    return known
