"""Texts to be spoken: an entry each of the setting ``texts``."""

import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.draft import decode_lines
from spiritlm_core.intake.files import File, list_tree, local_path, local_uri, printable, stat_file
from spiritlm_core.intake.opening import format_of, read_plain
from spiritlm_core.intake.speak.draw import Draw, evenly, shuffled
from spiritlm_core.intake.speak.grammar import parse_grammar
from spiritlm_core.intake.speak.transcripts import Recombined, Told

_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
_TEXTS = ("text", "jsonl")  # formats that lines are taken from

Made = tuple[str, str | None]  # A text and its label
Maker = Callable[[Draw, int], Made | None]
"""Gives the text of a number, counted from 0 for each entry; None where there is none."""


def _counts(pair: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= pair[0] <= pair[1]:
        raise ValueError(f"{list(pair)}: write the fewest and the most words, 1 or more")
    return pair


Length = Annotated[tuple[int, int], AfterValidator(_counts)]  # fewest and most words of an utterance


class Texts(FrozenConfig):
    """One source of texts."""

    weight: float = Field(1.0, gt=0, description="Share of the utterances, compared with the other entries.")

    def maker(self, told: Told) -> Maker:
        """What makes texts. Raises SourceError if there are none."""
        raise NotImplementedError


class LineTexts(Texts):
    """Lines or documents of a file or folder, sentence by sentence, each as often as the others."""

    kind: Literal["lines"] = "lines"
    path: str = Field(min_length=1, description="File or folder of .txt, .md or .jsonl (also .gz …), local or s3://.")
    field: str = Field("text", min_length=1, description="Field that holds the text, in JSON lines.")
    encoding: str = Field("utf-8", description="Character encoding; a byte order mark wins.")
    words: Length = Field((1, 20), description="Fewest and most words of an utterance; longer sentences are cut.")
    label: str | None = Field(None, description="Label of these utterances.")

    def maker(self, told: Told) -> Maker:
        """Every sentence once, then every one again, in a drawn order. Raises SourceError."""
        lines = _lines(self.path, self.field, self.encoding)
        sentences = {part for line in lines for part in _cut(line, self.words)}
        order = shuffled(sorted(_some(sentences, self.path)), Draw("lines"))
        return lambda _, number: (order[number % len(order)], self.label)


class WordTexts(Texts):
    """Words of a list, in any order."""

    kind: Literal["words"] = "words"
    path: str = Field(min_length=1, description="File with a word in each line, local or s3://.")
    encoding: str = Field("utf-8", description="Character encoding; a byte order mark wins.")
    words: Length = Field((1, 4), description="Fewest and most words of an utterance.")
    label: str | None = Field(None, description="Label of these utterances.")

    def maker(self, told: Told) -> Maker:
        """Draws words; the first ones go through the list. Raises SourceError."""
        words = sorted(_some({" ".join(line.split()) for line in _lines(self.path, "text", self.encoding)}, self.path))
        order, choice = shuffled(words, Draw("words")), evenly(tuple(words))

        def make(draw: Draw, number: int) -> Made:
            more = [choice.pick(draw.at(place)) for place in range(1, draw.at("length").whole(*self.words))]
            return " ".join([order[number % len(order)], *more]), self.label

        return make


class GrammarTexts(Texts):
    """Sentences of a grammar; its tags are the labels."""

    kind: Literal["grammar"] = "grammar"
    grammar: str = Field(
        "everyday",
        min_length=1,
        description="A JSGF file, a grammar itself, or everyday: English numbers, dates, times, money and letters.",
    )

    def maker(self, told: Told) -> Maker:
        """Draws sentences. Raises SourceError if the grammar cannot be read."""
        grammar = parse_grammar(*_grammar_text(self.grammar), told.language)
        return lambda draw, _: grammar.sentence(draw)


class TranscriptTexts(Texts):
    """The words of the recipe's other recordings in new order; of held-out ones nothing is used."""

    kind: Literal["transcripts"] = "transcripts"
    context: int = Field(1, ge=0, le=5, description="How many words the next one depends on; 0 takes any word.")
    words: Length = Field((1, 8), description="Fewest and most words of an utterance.")
    label: str | None = Field(None, description="Label of these utterances.")

    def maker(self, told: Told) -> Maker:
        """Draws chains of words. Raises SourceError if no recording says anything."""
        if not told.runs:
            raise SourceError(
                "source speak: `texts` of kind transcripts says the words of other recordings, and none of them has a "
                "transcript and is trained on: add some that have, or take this source out of the recipe"
            )
        chain = Recombined(told, self.context, self.words)
        return lambda draw, number: (text, self.label) if (text := chain.sentence(draw, number)) else None


AnyTexts = Annotated[LineTexts | WordTexts | GrammarTexts | TranscriptTexts, Field(discriminator="kind")]
"""An entry of ``texts``."""


def guess_texts(short: str) -> dict[str, str]:
    """The entry that ``speak:SHORT`` stands for: lines of a text file or folder, else a grammar."""
    if short == "everyday" or short.lower().removesuffix(".gz").endswith((".jsgf", ".gram")):
        return {"kind": "grammar", "grammar": short}
    return {"kind": "lines", "path": short}


def _grammar_text(grammar: str) -> tuple[str, str]:
    """The text of a grammar, and what messages call it."""
    if "=" in grammar and ";" in grammar:
        return grammar, "grammar"
    own = files("spiritlm_core.intake.speak") / "templates" / f"{grammar}.jsgf"
    if "/" not in grammar and own.is_file():
        return own.read_text(encoding="utf-8"), f"grammar {grammar}"
    lines = decode_lines(read_plain(_there(grammar).uri), "utf-8", grammar)
    if reason := next((reason for *_, reason in lines if reason), None):
        raise SourceError(f"source speak: grammar {grammar}: {reason}")
    return "\n".join(line for _, line, _ in lines), f"grammar {grammar}"


def _there(path: str) -> File:
    file = stat_file(path if "://" in path else local_uri(local_path(path)))
    if file.error:
        raise SourceError(f"source speak: {path}: {file.error}")
    return file


def _files(path: str) -> list[File]:
    """The file of that name, or the text files of a folder."""
    if not path.startswith("s3://") and (file := stat_file(local_uri(local_path(path)))).error != "not a regular file":
        return [_there(path) if file.error else file]
    if path.startswith("s3://") and not (file := stat_file(path)).error:
        return [file]
    return [file for file in list_tree(path) if format_of(file.path) in _TEXTS and not file.error]


def _lines(path: str, field: str, encoding: str) -> Iterator[str]:
    """Lines with something in them. Raises SourceError if a line is not in the encoding, or holds no text."""
    for file in _files(path):
        for number, line, reason in decode_lines(read_plain(file.uri), encoding, printable(file.path)):
            if reason:
                raise SourceError(f"source speak: {reason}")
            if line.strip():
                yield from _texts_of(line, field, f"{printable(file.path)}, line {number}", file).splitlines()


def _texts_of(line: str, field: str, where: str, file: File) -> str:
    if format_of(file.path) != "jsonl":
        return line
    try:
        text = json.loads(line).get(field)
    except (ValueError, AttributeError, RecursionError) as error:
        raise SourceError(f"source speak: {where} is no JSON object: {error}") from error
    if not isinstance(text, str):
        raise SourceError(f"source speak: {where} has no text in field {field!r}; set `field`")
    return text


def _cut(line: str, words: tuple[int, int]) -> Iterator[str]:
    """Sentences of a line, those that are too long in parts; none that is too short."""
    for sentence in _SENTENCE.split(line.strip()):
        tokens = sentence.split()
        for first in range(0, len(tokens), words[1]):
            if len(part := tokens[first : first + words[1]]) >= words[0]:
                yield " ".join(part)


def _some(texts: set[str], path: str) -> set[str]:
    texts = {text for text in texts if any(map(str.isalnum, text))}
    if not texts:
        raise SourceError(f"source speak: there are no texts of the wanted length in {path}")
    return texts
