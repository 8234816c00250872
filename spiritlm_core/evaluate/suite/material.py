"""What the built test sets say: texts made of the templates in ``templates/suite.yaml``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from spiritlm_core.audio.voices.espeak import Voice
from spiritlm_core.evaluate.suite.labels import Choice
from spiritlm_core.evaluate.suite.pairs import Pair, Side

_MATERIAL = Path(__file__).parents[1] / "templates" / "suite.yaml"


@dataclass(frozen=True)
class Said:
    """A labelled sentence, and how it is spoken; those of one `item` are made of the same template."""

    split: str
    label: str
    text: str
    item: str
    rate: int = 150
    pitch: int = 50
    range: int = 50

    def about(self) -> dict[str, str]:
        """A line of the file, but for what is said."""
        return {"split": self.split, "label": self.label, "item": self.item}

    def voice(self, name: str) -> Voice:
        """The voice called `name` as it says this."""
        return Voice(name, self.rate, self.pitch, self.range)


@cache
def _material() -> Mapping[str, Any]:
    return yaml.safe_load(_MATERIAL.read_text(encoding="utf-8"))


def pair_sets() -> dict[str, list[Pair]]:
    """The sets made of pairs."""
    material = _material()
    words = [Pair(good, Side(good), Side(bad), item=good) for good, bad in map(str.split, material["words"])]
    plots = material["stories"]["plots"]
    named = list(enumerate(material["stories"]["names"]))
    return {
        "words": words,
        "grammar": list(_grammar(material["grammar"])),
        "stories": [_story(plots, p, n, name, None) for n, name in named for p in range(len(plots))],
        "topic-stories": [_story(plots, p, n, name, n + 1) for n, name in named for p in range(len(plots))],
    }


def _grammar(material: Mapping[str, Any]) -> Iterator[Pair]:
    for number, (kind, good, bad) in enumerate(_sentences(material)):
        yield Pair(f"{number:03d}", Side(good), Side(bad), kind=kind, item=f"{number:03d}")


def _sentences(material: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Kind, good and bad sentence. Each form is as often right as wrong, so that no word gives the answer away."""
    verbs = [verb.split() for verb in material["verbs"]]
    for n, forms in enumerate(noun.split() for noun in material["nouns"]):
        adjective = material["adjectives"][n % len(material["adjectives"])]
        for number, noun in enumerate(forms):
            for v, verb in enumerate(verbs):
                tail = material["tails"][(n + v) % len(material["tails"])]
                good, bad = (f"The {noun} {verb[i]} {tail}." for i in (number, 1 - number))
                yield "subject and verb", good, bad
            be, this = ("is", "are"), ("this", "these")
            good, bad = (f"The {noun} {be[i]} {adjective}." for i in (number, 1 - number))
            yield "forms of be", good, bad
            good, bad = (f"I have seen {this[i]} {noun} before." for i in (number, 1 - number))
            yield "this and these", good, bad
    for line in material["reflexives"]:
        noun, right, wrong = line.split()
        yield "reflexives", f"The {noun} hurt {right}.", f"The {noun} hurt {wrong}."


def _story(plots: Sequence[Sequence[str]], plot: int, number: int, name: str, away: int | None) -> Pair:
    """A story with its ending; the wrong one is its own, or that of the plot so many places `away`."""
    *sentences, right, wrong = (sentence.replace("NAME", name) for sentence in plots[plot])
    if away is not None:
        wrong = plots[(plot + away) % len(plots)][4].replace("NAME", name)
    key, prefix = f"{plot:02d}-{number}", Side(" ".join(sentences))
    return Pair(key, Side(right), Side(wrong), prefix, item=f"{plot:02d}")


def intents() -> list[Said]:
    """Commands; every template is in both parts, with other places."""
    material = _material()["intents"]
    return [
        Said(_part(t + p), label, template.replace("PLACE", place), template)
        for label, templates in material["classes"].items()
        for t, template in enumerate(templates)
        for p, place in enumerate(material["places"])
    ]


def sentiments() -> list[Said]:
    """Sentences of two sentiments, each spoken in a manner of its own."""
    material = _material()["sentiments"]
    return [
        Said(_part(t + n), label, template.replace("THING", thing), template, **about["voice"])
        for label, about in material["classes"].items()
        for t, template in enumerate(about["templates"])
        for n, thing in enumerate(material["things"])
    ]


def _part(number: int) -> str:
    return ("train", "test")[number % 2]


def transcripts() -> list[list[str]]:
    """Sentences by chapter: the stories of the first name."""
    material = _material()["stories"]
    name = material["names"][0]
    return [[sentence.replace("NAME", name) for sentence in plot[:5]] for plot in material["plots"]]


def questions() -> list[Choice]:
    """Sums, plurals and opposites; the right answer stands in every place equally often, as far as that goes."""
    material = _material()["choices"]
    asked = [*_sums(material), *_words(material["plurals"], "one {}, two"), *_words(material["opposites"], _OPPOSITE)]
    items = []
    for number, (question, right, wrong) in enumerate(asked):
        place = number % (len(wrong) + 1)
        choices = (*wrong[:place], right, *wrong[place:])
        items.append(Choice(f"{number:03d}", question, tuple(choices), place))
    return items


_OPPOSITE = "the opposite of {} is"
Asked = tuple[str, str, list[str]]


def _sums(material: Mapping[str, Any]) -> Iterator[Asked]:
    numbers = material["numbers"]
    for line in material["sums"]:
        first, second = map(int, line.split())
        wrong = [numbers[(first + second + step) % len(numbers)] for step in (1, 2, len(numbers) - 1)]
        yield f"{numbers[first]} and {numbers[second]} make", numbers[first + second], wrong


def _words(lines: Sequence[str], question: str) -> Iterator[Asked]:
    for line in lines:
        word, right, *wrong = line.split()
        yield question.format(word), right, wrong
