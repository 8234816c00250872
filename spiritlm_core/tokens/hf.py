"""Hugging Face tokenizer folders: text tokenizers as artifacts, and the full tokenizer of a published model."""

import json
import shutil
from pathlib import Path
from typing import Any

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.tokens.config import SequencesConfig
from spiritlm_core.tokens.text import SPOKEN, TextTokenizer, plain_tokenizer, tokenizer_config
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE, Vocabulary

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
)
_CHAT = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_KEPT = (  # of tokenizer_config.json; the rest speaks to the class of the base tokenizer
    *_SPECIAL,
    "additional_special_tokens",
    "extra_special_tokens",
    "model_max_length",
    "padding_side",
    "model_input_names",
    "chat_template",
    SPOKEN,
)


def vocabulary_for(tokenizer: Path | TextTokenizer, config: SequencesConfig) -> Vocabulary:
    """The vocabulary that follows the ids of a text tokenizer (a folder, or one that is loaded)."""
    text = TextTokenizer.load(tokenizer) if isinstance(tokenizer, Path) else tokenizer
    return Vocabulary(text.size, config.hubert, config.pitch, config.style, bos=text.bos, eos=text.eos)


def copy_files(names: tuple[str, ...], source: Path, out: Path) -> None:
    """Copy those of the named files and folders that exist."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, out / name, dirs_exist_ok=True)
        elif (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as UTF-8 JSON, readable by people."""
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_config(out: Path, values: dict[str, Any]) -> None:
    """Write ``tokenizer_config.json`` so that every version of transformers takes ``tokenizer.json`` as it is.

    A class such as LlamaTokenizer rebuilds the pipeline from the vocabulary in some versions, with a prefix space.
    """
    kept = {key: values[key] for key in _KEPT if key in values}
    if isinstance(kept.get("extra_special_tokens"), list):  # written by transformers 5, unreadable to 4
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    fixed = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(out / "tokenizer_config.json", {**kept, **fixed})


def write_model_config(out: Path, values: dict[str, Any]) -> None:
    """Write the ``tokenizer_config.json`` of a model, with which the usual lines of transformers work.

    ``model.generate(**tokenizer(texts, padding=True))`` needs a padding token, on the left, and no inputs that a
    causal model does not take. EOS pads, as the model's configuration says; special tokens that ``tokenizer.json``
    does not have would become new ids, so they are left out.
    """
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab()
    special = {name: token for name in _SPECIAL if (token := _content(values.get(name))) in known}
    pad = next((special[name] for name in ("eos_token", "unk_token", "bos_token") if name in special), None)
    others = {name: value for name, value in values.items() if name not in _SPECIAL}
    padding = {"padding_side": "left", **({} if pad is None else {"pad_token": pad})}
    write_config(out, {**others, **special, **padding, "model_input_names": ["input_ids", "attention_mask"]})


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def save_tokenizer(text_tokenizer: Path, vocabulary: Vocabulary, out: Path) -> None:
    """Write a text tokenizer together with the markers and speech tokens, and ``vocabulary.json``.

    ``AutoTokenizer.from_pretrained(out)`` then gives the ids of `vocabulary`. The added tokens are neither special
    nor normalised: decoding keeps them, and text right behind one keeps its spaces. If the base tokenizer puts a
    BOS in front of a text, so does this one. Chat templates and special tokens stay.

    Args:
        text_tokenizer: Hugging Face folder with ``tokenizer.json``.
        vocabulary: Its `text_size` must be the number of ids of that tokenizer.
        out: Folder to write into; other files in it stay.

    Raises SpiritLMError: the vocabulary does not belong to this tokenizer, or the result would not give its ids.
    """
    tokenizer = _extended(text_tokenizer, vocabulary)
    copy_files(_CHAT, text_tokenizer, out)
    tokenizer.save(str(out / "tokenizer.json"))
    write_model_config(out, tokenizer_config(text_tokenizer))
    write_json(out / VOCABULARY_FILE, {**vocabulary.to_dict(), "fingerprint": vocabulary.fingerprint()})


def _extended(folder: Path, vocabulary: Vocabulary) -> Any:
    """The plain ``tokenizers.Tokenizer`` with the tokens of `vocabulary` behind its own."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(plain_tokenizer(folder)))
    size = tokenizer.get_vocab_size()
    if size != vocabulary.text_size:
        raise SpiritLMError(f"{folder}: has {size} tokens, but the vocabulary is for {vocabulary.text_size}")
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in vocabulary.tokens])
    _check(tokenizer, vocabulary, folder)
    return tokenizer


def _check(tokenizer: Any, vocabulary: Vocabulary, folder: Path) -> None:
    ids = list(range(vocabulary.text_size, vocabulary.size))
    if [tokenizer.token_to_id(token) for token in vocabulary.tokens] != ids:
        taken = [token for token in vocabulary.tokens if (tokenizer.token_to_id(token) or 0) < vocabulary.text_size]
        raise SpiritLMError(f"{folder}: cannot take the speech tokens; it has {taken[:3]} already")
    text = "".join(vocabulary.tokens)
    encoded = tokenizer.encode(text, add_special_tokens=False).ids
    if encoded != ids or tokenizer.decode(ids, skip_special_tokens=False) != text:
        raise SpiritLMError(f"{folder}: speech tokens do not survive encoding and decoding with this tokenizer")


def load_vocabulary(folder: Path) -> Vocabulary:
    """Read ``vocabulary.json`` of a published model or a checkpoint. Raises SpiritLMError: it is missing or damaged."""
    values = read_json(folder / VOCABULARY_FILE)
    try:
        vocabulary = Vocabulary.from_dict(values)
    except (TypeError, KeyError) as error:
        raise ModelReferenceError(f"{folder / VOCABULARY_FILE}: not a vocabulary: {error}") from error
    if values.get("fingerprint") != vocabulary.fingerprint():
        raise ModelReferenceError(f"{folder / VOCABULARY_FILE}: its fingerprint does not match its content")
    return vocabulary
