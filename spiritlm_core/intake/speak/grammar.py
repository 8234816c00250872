"""Grammars that make sentences: JSGF (JSpeech Grammar Format, W3C Note 5 June 2000) and numbers.

    public <number> = /3/ <0..20> {digits} | <21..999>;
    public <date>   = <day> [the] <ordinal 1..31> of <month>;
    <day>           = Monday | Tuesday;
    <month>         = March | April;
    public <code>   = <0..9>*2-4;

``|`` parts alternatives, ``/3/`` weighs one, ``( )`` groups, ``[ ]`` may be said, ``*`` and ``+`` repeat, ``{tag}`` is
the label, ``//`` begins a comment. Beyond JSGF: ``*2-4`` repeats two to four times, and ``<0..20>``,
``<ordinal 1..31>``, ``<year 1900..2030>`` and ``<digits 10..9999>`` (digit by digit) are numbers in words. A sentence
comes from one of the public rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.speak.draw import Choice, Draw
from spiritlm_core.language import number_words

_TOKEN = re.compile(
    r"(?P<blank>\s+|//[^\n]*|/\*.*?\*/|#JSGF[^;\n]*;?)|(?P<weight>/\s*[\d.]+\s*/)|(?P<times>\*\d+(?:-\d+)?)|(?P<rule><[^<>\n]+>)"
    r'|(?P<tag>\{[^{}]*\})|"(?P<quoted>[^"\n]*)"|(?P<mark>[;=|()\[\]*+])|(?P<word>[^\s;=|()\[\]*+<>{}/"]+)',
    re.DOTALL,
)
_NUMBER = re.compile(r"(?:(cardinal|ordinal|year|digits)\s+)?(\d+)\s*\.\.\s*(\d+)")
_MOST = 4  # times that ``*`` and ``+`` repeat
_DEEPEST = 60  # rules within rules


@dataclass
class Sentence:
    """What has been made so far: words, and the label of the first tag that was met."""

    words: list[str] = field(default_factory=list)
    label: str | None = None


class Part(Protocol):
    """A part of a rule."""

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        """Add what is drawn to `sentence`."""


@dataclass(frozen=True)
class _Words:
    text: str

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        sentence.words.append(self.text)


@dataclass(frozen=True)
class _Tag:
    name: str

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        sentence.label = sentence.label or self.name


@dataclass(frozen=True)
class _Number:
    form: str
    low: int
    high: int

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        number = draw.whole(self.low, self.high)
        sentence.words += _spelt(number, grammar.language, self.form)


@dataclass(frozen=True)
class _Rule:
    name: str

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        if depth > _DEEPEST:
            raise SourceError(f"{grammar.name}: rule <{self.name}> leads to itself without an end")
        grammar.rules[self.name].say(grammar, draw.at(self.name), sentence, depth + 1)


@dataclass(frozen=True)
class _Sequence:
    parts: Sequence[Part]

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        for number, part in enumerate(self.parts):
            part.say(grammar, draw.at(number), sentence, depth)


@dataclass(frozen=True)
class _Alternatives:
    choice: Choice[Part]

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        self.choice.pick(draw).say(grammar, draw.at("|"), sentence, depth)


@dataclass(frozen=True)
class _Repeated:
    part: Part
    low: int
    high: int

    def say(self, grammar: Grammar, draw: Draw, sentence: Sentence, depth: int) -> None:
        for number in range(draw.whole(self.low, self.high)):
            self.part.say(grammar, draw.at("*", number), sentence, depth)


@dataclass(frozen=True)
class Grammar:
    """Rules that make sentences of a language; `name` is what messages call it."""

    name: str
    language: str
    rules: Mapping[str, Part]
    start: Part

    def sentence(self, draw: Draw) -> tuple[str, str | None]:
        """A sentence and its label. Raises SourceError if a rule leads to itself without an end."""
        sentence = Sentence()
        self.start.say(self, draw, sentence, 0)
        return " ".join(" ".join(sentence.words).split()), sentence.label


def parse_grammar(text: str, name: str, language: str) -> Grammar:
    """Read a grammar; numbers are said in `language`.

    Raises SourceError: it is no grammar, or names a rule that is nowhere; tells the line.
    """
    return _Parser(text, name).grammar(language)


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._name, self._named = name, dict[str, int]()  # rules that are used, and the line
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            line, match = 1 + text.count("\n", 0, at), _TOKEN.match(text, at)
            if match is None:
                raise SourceError(f"{name}, line {line}: cannot be understood: {text[at : at + 20]!r}")
            if (kind := str(match.lastgroup)) != "blank":
                self._tokens.append((kind, match[kind], line))
            at = match.end()
        self._tokens.append(("end", "", 1 + text.count("\n")))
        self._next = 0

    def grammar(self, language: str) -> Grammar:
        rules: dict[str, Part] = {}
        public: dict[str, tuple[Part, float]] = {}
        while self._peek()[0] != "end":
            if self._takes("grammar"):
                self._expect("word")
                self._expect(";")
                continue
            shown = self._takes("public")
            rule = self._expect("rule").strip("<> ")
            self._expect("=")
            if rule in rules:
                raise self._error(f"there are two rules <{rule}>")
            rules[rule] = self._alternatives()
            self._expect(";")
            if shown:
                public[rule] = (_Rule(rule), 1.0)
        for rule, line in self._named.items():
            if rule not in rules:
                raise SourceError(f"{self._name}, line {line}: there is no rule <{rule}>, only {', '.join(rules)}")
        if not public:
            raise SourceError(f"{self._name}: no rule is public: write `public <name> = …;` for what is to be said")
        return Grammar(self._name, language, rules, _Alternatives(Choice(public)))

    def _alternatives(self) -> Part:
        options: dict[
            str, tuple[Part, float]
        ] = {}  # by how they are written, and a second one of the same kind by more
        while not options or self._takes("|"):
            first, (part, weight) = self._next, self._weighed()
            written = " ".join(value for kind, value, _ in self._tokens[first : self._next] if kind != "weight")
            while written in options:
                written += " again"
            options[written] = part, weight
        return part if len(options) == 1 else _Alternatives(Choice(options))

    def _weighed(self) -> tuple[Part, float]:
        kind, value, _ = self._peek()
        weight = 1.0
        if kind == "weight":
            self._next += 1
            try:
                weight = float(value.strip("/ "))
            except ValueError:
                weight = 0.0
            if weight <= 0:
                raise self._error(f"{value} is no weight: a number greater than zero is")
        parts: list[Part] = []
        while (part := self._part()) is not None:
            parts.append(part)
        if not parts:
            raise self._error("an alternative is empty: write [ ] around what may be left out")
        return (parts[0] if len(parts) == 1 else _Sequence(parts)), weight

    def _part(self) -> Part | None:
        kind, value, line = self._peek()
        if kind in ("end", "weight", "times") or (kind == "mark" and value not in ("(", "[")):
            return None
        self._next += 1
        part: Part
        if kind == "rule":
            part = self._reference(value.strip("<> "), line)
        elif kind == "tag":
            return _Tag(value.strip("{} "))
        elif kind == "mark":
            inside = self._alternatives()
            self._expect(")" if value == "(" else "]")
            part = inside if value == "(" else _Repeated(inside, 0, 1)
        else:
            part = _Words(value)
        return self._repeated(part)

    def _reference(self, name: str, line: int) -> Part:
        if number := _NUMBER.fullmatch(name):
            low, high = int(number[2]), int(number[3])
            if low > high:
                raise self._error(f"<{name}>: {low} is greater than {high}")
            return _Number(number[1] or "cardinal", low, high)
        self._named.setdefault(name, line)
        return _Rule(name)

    def _repeated(self, part: Part) -> Part:
        kind, value, _ = self._peek()
        if kind == "times":
            self._next += 1
            low, _, high = value[1:].partition("-")
            return _Repeated(part, int(low), int(high or low))
        if value in ("*", "+") and kind == "mark":
            self._next += 1
            return _Repeated(part, 0 if value == "*" else 1, _MOST)
        return part

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _takes(self, value: str) -> bool:
        """Whether the next token is `value`, which is then passed."""
        found = self._peek()[0] in ("mark", "word") and self._peek()[1] == value
        self._next += found
        return found

    def _expect(self, wanted: str) -> str:
        kind, value, _ = self._peek()
        if wanted not in (kind, value):
            shown = {"rule": "a <rule>", "word": "a name"}.get(wanted, repr(wanted))
            raise self._error(f"here should be {shown}, not {value or 'the end'!r}")
        self._next += 1
        return value

    def _error(self, message: str) -> SourceError:
        return SourceError(f"{self._name}, line {self._peek()[2]}: {message}")


@lru_cache(maxsize=65536)
def _spelt(number: int, language: str, form: str) -> list[str]:
    if form == "digits":
        return [word for digit in str(number) for word in number_words(int(digit), language)]
    return number_words(number, language, form)
