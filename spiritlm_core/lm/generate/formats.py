"""How a model was taught to write prompts: two layouts of the same parts; and answers, whole or as they come."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lm.generate.content import Segment, SpeechSegment, TextSegment
from spiritlm_core.lm.generate.prompts import Kind, Modality, Part, parts_of, prompt_ids, prompt_string, read_back
from spiritlm_core.tokens.released import ReleasedTextTokenizer
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import TEXT_MARKER, Vocabulary

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.decode import Continuation, Step

_ADDED = re.compile(r"(\[(?:Text|Speech|(?:Hu|Pi|St)[0-9]+)\])")


class PromptFormat(ABC):
    """Prompts to ids and answers back, for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @abstractmethod
    def prompt(self, parts: Sequence[tuple[Kind, str]], modality: Modality) -> list[int]:
        """Ids of text and speech tokens in order, with a marker wherever the modality changes."""

    @abstractmethod
    def encode(self, string: str) -> list[int]:
        """Ids of a prompt string that the caller wrote, markers included."""

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """Text of text ids, with the space in front if there is one."""

    @abstractmethod
    def read(self, prompt: Sequence[int], new: Sequence[int], modality: Modality) -> list[Segment]:
        """The segments of an answer; empty ones are left out."""

    def known(self, text: str) -> str:
        """The text in the form that the model knows: as its answers are written, and as it reads prompts."""
        return text

    @cached_property
    def added(self) -> dict[str, int]:
        """Markers and speech tokens, and their ids."""
        return {token: self.vocabulary.text_size + i for i, token in enumerate(self.vocabulary.tokens)}

    def tokens(self, ids: Sequence[int]) -> str:
        """Speech tokens of speech ids, as a string."""
        return "".join([self.vocabulary.tokens[i - self.vocabulary.text_size] for i in ids])

    def speech_ids(self, string: str) -> list[int]:
        """Ids of speech tokens such as ``[St3][Pi1][Hu7]``, white space between them ignored.

        Raises SpiritLMError: something in `string` is no speech token of this model.
        """
        tokens = [f"{token}]" for token in "".join(string.split()).split("]")]
        if tokens.pop() != "]":
            raise SpiritLMError("a string of speech tokens ends with ']'")
        ids = [self.added.get(token, 0) for token in tokens]
        for token, i in zip(tokens, ids, strict=True):
            if i <= self.vocabulary.speech_marker:
                raise SpiritLMError(f"{token!r:.60} is not a speech token of this model")
        return ids


class WordFormat(PromptFormat):
    """Models of this project: a word brings its space in front, see ``docs/tokens.md``."""

    def __init__(self, text: TextTokenizer, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._text = text

    def known(self, text: str) -> str:
        """The text as its tokenizer brings it into form; see ``tokens.tokenizer.text``."""
        return self._text.known(text)

    def prompt(self, parts: Sequence[tuple[Kind, str]], modality: Modality) -> list[int]:
        """BOS if the model has one, then markers, words and speech tokens."""
        return prompt_ids([self._part(kind, content) for kind, content in parts], self.vocabulary, modality)

    def _part(self, kind: Kind, content: str) -> Part:
        if kind == "speech":
            return kind, self.speech_ids(content)
        return kind, self._text.encode_words(content).ids.tolist()

    def encode(self, string: str) -> list[int]:
        """Known tokens are themselves, all else is text as written, in the known form: no space is added."""
        ids = [] if self.vocabulary.bos is None else [self.vocabulary.bos]
        for piece in _ADDED.split(string):
            known = self.added.get(piece)
            ids += self._text.encode(piece) if known is None else [known]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Text of text ids."""
        return self._text.decode(ids)

    def read(self, prompt: Sequence[int], new: Sequence[int], modality: Modality) -> list[Segment]:
        """Runs of text and of speech ids, text without white space at its ends."""
        segments: list[Segment] = []
        for kind, ids in parts_of(new, self.vocabulary):
            if kind == "speech":
                segments.append(SpeechSegment(self.tokens(ids), "" if segments else self._open(prompt, new)))
            elif text := self.text(ids).strip():
                segments.append(TextSegment(text))
        return segments

    def _open(self, prompt: Sequence[int], new: Sequence[int]) -> str:
        """The speech tokens at the end of the prompt, if the answer goes on with them."""
        first = self.vocabulary.speech_marker + 1
        if not new or new[0] < first:
            return ""
        return self.tokens(list(takewhile(lambda i: i >= first, reversed(prompt)))[::-1])


class StringFormat(PromptFormat):
    """The released models: the prompt is one string, which a SentencePiece tokenizer takes as a whole."""

    def __init__(self, tokenizer: ReleasedTextTokenizer, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._tokenizer = tokenizer

    def prompt(self, parts: Sequence[tuple[Kind, str]], modality: Modality) -> list[int]:
        """Text verbatim, what reads like a token included; nothing between the parts but markers."""
        mark = unused_character("".join([content for _, content in parts]))
        written = [(kind, self._written(kind, content, mark)) for kind, content in parts]
        return self._tokenizer.encode(prompt_string(written, modality), mark)

    def _written(self, kind: Kind, content: str, mark: str) -> str:
        """A part in which nothing reads like a token but speech tokens: a mark breaks those in a text."""
        return self._in_tokens.sub(mark, content) if kind == "text" else self.tokens(self.speech_ids(content))

    @cached_property
    def _in_tokens(self) -> re.Pattern[str]:
        """The place behind the first character of anything that would not be read as text."""
        tokens = {*self.added, *self._tokenizer.added}
        return re.compile("|".join(f"(?<={re.escape(t[0])})(?={re.escape(t[1:])})" for t in tokens if len(t) > 1))

    def encode(self, string: str) -> list[int]:
        """BOS and the ids of the string."""
        return self._tokenizer.encode(string)

    def text(self, ids: Sequence[int]) -> str:
        """Text of text ids: behind a marker, where a space in front is kept."""
        return self._tokenizer.decode([self.vocabulary.text_marker, *ids]).removeprefix(TEXT_MARKER)

    def read(self, prompt: Sequence[int], new: Sequence[int], modality: Modality) -> list[Segment]:
        """By the rules of the released code; of a speech answer, its speech tokens."""
        before = self._tokenizer.decode(prompt)
        continuation = self._tokenizer.decode([*prompt, *new])[len(before) :]
        spoken = bool(prompt) and prompt[-1] > self._marker  # a text may end like a speech token
        parts, continues = read_back(before if spoken else "", continuation, modality)
        segments: list[Segment] = []
        for index, (kind, content) in enumerate(parts):
            opened = continues if not index else ""
            known = "".join(t for t in _ADDED.findall(content[len(opened) :]) if self.added.get(t, 0) > self._marker)
            if kind == "speech" and known:
                segments.append(SpeechSegment(known, opened))
            elif kind == "text" and content:
                segments.append(TextSegment(content))
        return segments

    @property
    def _marker(self) -> int:
        return self.vocabulary.speech_marker


def unused_character(text: str) -> str:
    """A character for private use that is not in `text`."""
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)


_INCOMPLETE = "\ufffd"  # what the first bytes of a character decode to


def follow(
    layout: PromptFormat, prompt: Sequence[int], steps: Iterable[Step], modality: Modality
) -> Generator[Segment, None, Continuation]:
    """What each step of one prompt adds; the first piece says which speech of the prompt it goes on with.

    Returns all of it.
    """
    from spiritlm_core.lm.generate.decode import Continuation

    new = Continuation()

    def tokens() -> Iterator[int]:
        for step in steps:
            new.take(step)
            if step.token is not None:
                yield step.token

    coming = pieces(layout, tokens())
    for first in coming:
        yield _opening(first, layout.read(prompt, new.ids, modality))
        yield from coming
    return new


def _opening(first: Segment, read: Sequence[Segment]) -> Segment:
    """The first piece as :meth:`PromptFormat.read` knows it, which sees the prompt."""
    known = next(iter(read), None)
    if not (isinstance(first, SpeechSegment) and isinstance(known, SpeechSegment)):
        return first
    return replace(first, continues=known.continues)


def pieces(layout: PromptFormat, ids: Iterable[int]) -> Iterator[Segment]:
    """What each id adds; an id that ends within a character adds nothing until the character is whole."""
    vocabulary = layout.vocabulary
    text: list[int] = []
    shown = 0
    for token in ids:
        if token < vocabulary.text_size:
            text.append(token)
            so_far = layout.text(text)
            if not so_far.endswith(_INCOMPLETE) and len(so_far) > shown:
                yield TextSegment(so_far[shown:])
                shown = len(so_far)
            continue
        yield from _rest(layout, text, shown)
        text, shown = [], 0
        if token > vocabulary.speech_marker:
            yield SpeechSegment(layout.tokens([token]))
    yield from _rest(layout, text, shown)


def _rest(layout: PromptFormat, text: list[int], shown: int) -> Iterator[Segment]:
    if rest := layout.text(text)[shown:]:
        yield TextSegment(rest)
