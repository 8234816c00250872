"""Text tokens, word by word: any Hugging Face tokenizer with a ``tokenizer.json``.

A text is written as its words with one space in front of each, ``" and they"``. Word boundaries are then token
boundaries in nearly every tokenizer; where a token reaches over one, the modality must not change there.

Many tokenizers put a space in front of a text and take it away again on decoding. Inside a sequence such as
``… [Text] and they [Speech] …`` that adds or loses spaces at every marker. A plain tokenizer encodes exactly what
it is given and decodes to exactly that. That of a published model loses its markers and speech tokens, too: they are
put in by id, and a text that reads like one is text.

A tokenizer may know texts in their spoken form alone (``tokens.tokenizer.text: spoken``). Its folder says so, and
whatever it encodes, in training or in use, is brought into that form here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import read_json
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE
from spiritlm_core.tokens.words import spoken_text, words_of

SPOKEN = "spoken_language"
"""Entry of ``tokenizer_config.json``: the language in whose spoken form the tokenizer knows texts."""

_CACHED_WORDS = 200_000

Json = dict[str, Any]


@dataclass(frozen=True)
class WordIds:
    """The tokens of a text, shared out to its W words."""

    words: list[str]
    """The words as the tokenizer knows them; in spoken form one may be several, ``"twenty five"``, or none."""
    ids: np.ndarray  # int32[N], always equal to the ids of the whole text
    offsets: np.ndarray  # int32[W + 1]; word i owns ``ids[offsets[i]:offsets[i + 1]]``, which may be nothing
    can_switch: np.ndarray  # bool[W]; False where a token reaches from an earlier word into word i
    independent: bool  # whether every word encoded alone gives the same ids


class TextTokenizer:
    """A text tokenizer that adds nothing: no prefix space, no special tokens.

    Attributes:
        size: Number of ids, special tokens included; the ids are ``0 … size - 1``.
        bos: Id that the tokenizer puts in front of a text by itself, or None.
        eos: Id of its end-of-text token, or None.
        spoken: Language in whose spoken form it knows texts, or None: as they are given.
    """

    def __init__(
        self, tokenizer: Any, bos: int | None = None, eos: int | None = None, spoken: str | None = None
    ) -> None:
        """`tokenizer` is a plain ``tokenizers.Tokenizer`` without post-processor; see :meth:`load`."""
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "</s>" in a transcript is text
        self._known: dict[str, list[int]] = {}
        self.bos, self.eos, self.spoken = bos, eos, spoken
        self.size: int = tokenizer.get_vocab_size(with_added_tokens=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load from a Hugging Face tokenizer folder.

        Raises ModelReferenceError: there is no usable ``tokenizer.json``, or its ids have gaps.
        """
        from tokenizers import Tokenizer

        values = plain_tokenizer(path)
        try:
            whole = Tokenizer.from_str(json.dumps(values))
            tokenizer = Tokenizer.from_str(json.dumps({**values, "post_processor": None}))
        except Exception as error:  # the library raises bare Exceptions
            raise ModelReferenceError(f"{path}/tokenizer.json: {error}") from error
        if sorted(tokenizer.get_vocab(with_added_tokens=True).values()) != list(range(tokenizer.get_vocab_size())):
            raise ModelReferenceError(f"{path}/tokenizer.json: its ids are not 0 … n - 1 without gaps")
        first = whole.encode("").ids[:1]
        config = tokenizer_config(path)
        eos = _special_id(config, tokenizer, "eos_token")
        return cls(tokenizer, first[0] if first else None, eos, config.get(SPOKEN))

    def known(self, text: str) -> str:
        """The text in the form that the tokenizer knows: itself, or the spoken form of each of its lines."""
        return text if self.spoken is None else "\n".join([_said(line, self.spoken) for line in text.splitlines()])

    def encode(self, text: str) -> list[int]:
        """Ids of exactly this text, in the form that the tokenizer knows."""
        return self._ids(self.known(text))

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Inverse of :meth:`encode`: a space in front stays."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def encode_words(self, words: str | Sequence[str]) -> WordIds:
        """Tokens of ``" " + " ".join(words)``, shared out to the words; a text is split at white space."""
        words = self._words(words)
        encoding = self._tokenizer.encode("".join(map(_spaced, words)), add_special_tokens=False)
        alone = [self._word(word) for word in words]
        if [i for ids in alone for i in ids] == encoding.ids:
            counts = [len(ids) for ids in alone]
            return WordIds(words, np.array(encoding.ids, np.int32), _offsets(counts), np.ones(len(words), bool), True)
        return _by_offsets(words, encoding.ids, encoding.offsets)

    def _words(self, words: str | Sequence[str]) -> list[str]:
        if self.spoken is None:
            return words.split() if isinstance(words, str) else list(words)
        if isinstance(words, str):
            words = [word.written for word in words_of(words, self.spoken)]
        return [spoken_text(word, self.spoken) for word in words]

    def _word(self, word: str) -> list[int]:
        ids = self._known.get(word)
        if ids is None:
            if len(self._known) >= _CACHED_WORDS:
                self._known.clear()
            ids = self._known[word] = self._ids(_spaced(word))
        return ids


def _spaced(word: str) -> str:
    """A word as it is written in a text, behind a space; one of which nothing is said is nothing."""
    return f" {word}" if word else ""


def _said(line: str, language: str) -> str:
    """The spoken form of a line; a space in front of it stays."""
    said = spoken_text(line, language)
    return _spaced(said) if line[:1].isspace() else said


def tokenizer_config(folder: Path) -> Json:
    """The content of ``tokenizer_config.json``, if there is one."""
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _special_id(config: Json, tokenizer: Any, name: str) -> int | None:
    """Id of a special token named in ``tokenizer_config.json``, if there is one."""
    token = config.get(name)
    content = token.get("content") if isinstance(token, dict) else token
    return tokenizer.token_to_id(content) if content else None


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _by_offsets(words: list[str], ids: list[int], spans: list[tuple[int, int]]) -> WordIds:
    """Give each token to the word its first character is in; no switch where a token reaches over a boundary."""
    starts = _offsets([len(_spaced(word)) for word in words])  # characters; a word starts at its space
    begin, end = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    begin = np.maximum.accumulate(begin)
    last = np.maximum(end - 1, begin)
    owner, reach = (np.clip(np.searchsorted(starts, at, "right") - 1, 0, len(words) - 1) for at in (begin, last))
    reached = np.zeros(len(words) + 1, dtype=np.int64)
    np.add.at(reached, owner + 1, 1)
    np.add.at(reached, reach + 1, -1)
    counts = np.bincount(owner, minlength=len(words))
    return WordIds(words, np.array(ids, np.int32), _offsets(counts), np.cumsum(reached)[:-1] == 0, False)


def plain_tokenizer(folder: Path) -> Json:
    """The content of ``tokenizer.json`` in a Hugging Face folder, made plain: text tokens alone.

    Raises ModelReferenceError: there is no readable ``tokenizer.json``.
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
