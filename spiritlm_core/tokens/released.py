"""The tokenizer of the released language models: SentencePiece with the habits of the slow Llama tokenizer.

transformers' fast tokenizer gives other ids for most prompts with markers on the same file, and its version 5 has no
slow one. So this reads ``tokenizer.model`` itself: a text is taken as a whole, a space is put in front of it, and only
special tokens split it. Markers and speech tokens are pieces of the model; where they are added tokens instead, each
text between them is a whole of its own.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.tokens.text import tokenizer_config

_SPACE = "▁"


class ReleasedTextTokenizer:
    """Strings to ids and back.

    Attributes:
        bos: id put in front of every text.
        eos: id of the end.
        added: tokens that split a text, and their ids; the special ones among them.
    """

    def __init__(self, pieces: Any, added: dict[str, int], stripping: Iterable[tuple[str, bool, bool]] = ()) -> None:
        """Take a ``SentencePieceProcessor``, tokens outside of it with their ids, and those that strip white space.

        Such a token is its name, and whether it takes the white space to its left, and to its right, with it.
        """
        self._pieces = pieces
        self.bos, self.eos = int(pieces.bos_id()), int(pieces.eos_id())
        special = [i for i in (int(pieces.unk_id()), self.bos, self.eos) if i >= 0]
        self._special = set(special)
        self.added = {**{pieces.id_to_piece(i): i for i in special}, **added}
        self._names = {i: token for token, i in self.added.items()}
        strips = {token: (left, right) for token, left, right in stripping}
        self._split = re.compile("|".join(_pattern(t, *strips.get(t, (False, False))) for t in _longest(self.added)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``tokenizer.model`` and, where they are, the added tokens in the other tokenizer files.

        Raises ModelReferenceError: a file is missing or damaged.
        """
        from sentencepiece import SentencePieceProcessor

        path = folder / "tokenizer.model"
        if not path.is_file():
            raise ModelReferenceError(f"{path} is missing: complete the download")
        try:
            pieces: Any = SentencePieceProcessor(model_proto=path.read_bytes())
        except (RuntimeError, OSError) as error:
            raise ModelReferenceError(f"{path} is damaged, or not a SentencePiece model: download it again") from error
        added, stripping = _added_tokens(folder)
        return cls(pieces, added, stripping)

    def __len__(self) -> int:
        return max([int(self._pieces.get_piece_size()) - 1, *self.added.values()]) + 1

    def id_of(self, token: str) -> int | None:
        """Id of a token, or None if there is no such token."""
        if token in self.added:
            return self.added[token]
        i = int(self._pieces.piece_to_id(token))
        return None if i == self._pieces.unk_id() else i

    def encode(self, text: str, mark: str = "") -> list[int]:
        """BOS and the ids of the text; ``</s>`` in it is EOS, as in the released code.

        A `mark` is a character that breaks what would be read as a token, ``<`` mark ``/s>``, and has no ids of its
        own. Raises SpiritLMError: there is a mark, and the tokenizer cannot tell it from other characters.
        """
        ids = self._split_ids(text)
        return _without(ids, self._bytes_of(mark)) if mark and mark in text else ids

    def _bytes_of(self, character: str) -> list[int]:
        ids = [self.id_of(f"<0x{byte:02X}>") for byte in character.encode()]
        if None in ids:
            raise SpiritLMError("a text that reads like a token cannot be written with this tokenizer: it has no bytes")
        return [i for i in ids if i is not None]

    def _split_ids(self, text: str) -> list[int]:
        ids, done = [self.bos], 0
        for match in self._split.finditer(text):
            token = match[0] if match[0] in self.added else match[0].strip()
            ids += [*self._whole(text[done : match.start()]), self.added[token]]
            done = match.end()
        return ids + self._whole(text[done:])

    def _whole(self, text: str) -> list[int]:
        return [int(i) for i in self._pieces.encode(text)] if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """The text without special tokens; the space in front of it goes, no other one."""
        parts: list[str] = []
        run: list[str] = []
        for i in ids:
            if i in self._special:
                continue
            if i in self._names:
                parts += [self._join(run), self._names[i]]
                run = []
            else:
                run.append(str(self._pieces.id_to_piece(int(i))))
        return "".join([*parts, self._join(run)])

    def _join(self, run: list[str]) -> str:
        """A run of pieces as text; of two spaces in front, SentencePiece itself takes the second."""
        return str(self._pieces.decode_pieces([run[0].removeprefix(_SPACE), *run[1:]])) if run else ""


def _without(ids: Iterable[int], run: list[int]) -> list[int]:
    """`ids` less every place where they are `run`."""
    kept: list[int] = []
    for i in ids:
        kept.append(i)
        if kept[-len(run) :] == run:
            del kept[-len(run) :]
    return kept


def _longest(tokens: Iterable[str]) -> list[str]:
    return sorted(tokens, key=lambda token: (-len(token), token))


def _pattern(token: str, left: bool, right: bool) -> str:
    return (r"\s*" if left else "") + re.escape(token) + (r"\s*" if right else "")


def _added_tokens(folder: Path) -> tuple[dict[str, int], list[tuple[str, bool, bool]]]:
    """Tokens outside of ``tokenizer.model``, their ids, and which of them strip white space."""
    added: dict[str, int] = {}
    stripping: list[tuple[str, bool, bool]] = []
    try:
        if (folder / "added_tokens.json").is_file():
            added = {str(token): int(i) for token, i in read_json(folder / "added_tokens.json").items()}
        for i, token in tokenizer_config(folder).get("added_tokens_decoder", {}).items():
            added[str(token["content"])] = int(i)
            stripping.append((token["content"], bool(token.get("lstrip")), bool(token.get("rstrip"))))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelReferenceError(f"{folder}: its added tokens cannot be read: {error!r}") from error
    return added, stripping
