"""A ``tokenizer.json`` without its habits at the start of a text.

Many tokenizers put a space in front of a text and take it away again on decoding. Inside a sequence such as
``… [Text] and they [Speech] …`` that adds or loses spaces at every marker. A plain tokenizer encodes exactly what
it is given and decodes to exactly that; words carry their space in front: ``" and they"``. That of a published model
loses its markers and speech tokens, too: they are put in by id, and a text that reads like one is text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE

Json = dict[str, Any]


def plain_tokenizer(folder: Path) -> Json:
    """The content of ``tokenizer.json`` in a Hugging Face folder, made plain: text tokens alone.

    Raises:
        ModelReferenceError: there is no readable ``tokenizer.json``.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelReferenceError(f"{folder}: no tokenizer.json there; convert the tokenizer with the tokenizer stage")
    values = read_json(path)
    values["normalizer"] = _walk(values.get("normalizer"), _plain_normalizer)
    values["pre_tokenizer"] = _walk(values.get("pre_tokenizer"), _plain_pre_tokenizer)
    values["decoder"] = _walk(values.get("decoder"), _plain_decoder)
    values["added_tokens"] = _text_tokens(folder, values.get("added_tokens") or [])
    return {**values, "truncation": None, "padding": None}


def _text_tokens(folder: Path, added: list[Json]) -> list[Json]:
    """The added tokens without those that ``vocabulary.json`` puts behind the text tokens."""
    path = folder / VOCABULARY_FILE
    size = read_json(path).get("text_size") if path.is_file() else None
    return [token for token in added if size is None or token["id"] < size]


def _walk(part: Json | None, change: Callable[[Json], Json | None]) -> Json | None:
    """Apply `change` to a part or, in a sequence, to each of its members; None drops one."""
    if part is None or part["type"] != "Sequence":
        return part and change(part)
    name = next(key for key in ("normalizers", "pretokenizers", "decoders") if key in part)
    return {**part, name: [kept for member in part[name] if (kept := _walk(member, change)) is not None]}


def _plain_normalizer(part: Json) -> Json | None:
    if part["type"] == "Prepend":
        return None
    return {**part, "strip_left": False} if part["type"] == "Strip" else part


def _plain_pre_tokenizer(part: Json) -> Json:
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return _plain_metaspace(part)


def _plain_decoder(part: Json) -> Json | None:
    if part["type"] == "Strip" and part.get("content") == " " and part.get("start"):
        return {**part, "start": 0} if part.get("stop") else None
    return _plain_metaspace(part)


def _plain_metaspace(part: Json) -> Json:
    if part["type"] != "Metaspace":
        return part
    return {**{key: value for key, value in part.items() if key != "add_prefix_space"}, "prepend_scheme": "never"}
