"""The address of an utterance that a machine speaks: it says all that its sound depends on.

    speak://espeak/en-us+f3?pitch=40&rate=150&text=press+one

So every machine of a cluster can make it, and it is known, counted and cached before anybody has made it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from urllib.parse import parse_qsl, quote, quote_plus, unquote

SCHEME = "speak://"
_quoted = lru_cache(maxsize=4096)(quote_plus)  # the same few settings over and over


@dataclass(frozen=True)
class Utterance:
    """A text and how it is spoken."""

    engine: str  # its kind: espeak, piper, flite or command
    voice: str  # its name for that engine
    text: str  # what is said
    settings: Mapping[str, str] = field(default_factory=dict)  # of the engine, and what is done to the sound

    @cached_property
    def uri(self) -> str:
        """Its address, the same for equal utterances."""
        said = sorted({**self.settings, "text": self.text}.items())
        query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in said)
        return f"{SCHEME}{self.engine}/{quote(self.voice, safe='+')}?{query}"

    @property
    def digest(self) -> str:
        """sha256 (hex) of all that the sound depends on: of a model its content, not where that was found."""
        known = {name: value for name, value in self.settings.items() if name != "model"}
        alike = self if len(known) == len(self.settings) else replace(self, settings=known)
        return hashlib.sha256(alike.uri.encode()).hexdigest()


def parse_utterance(uri: str) -> Utterance:
    """The utterance of an address that :attr:`Utterance.uri` made."""
    place, _, said = uri.removeprefix(SCHEME).partition("?")
    engine, _, voice = place.partition("/")
    settings = dict(parse_qsl(said, keep_blank_values=True))
    return Utterance(engine, unquote(voice), settings.pop("text"), settings)


def engine_of(uri: str) -> str | None:
    """The engine that speaks what lies at `uri`; None for a file."""
    return uri.removeprefix(SCHEME).partition("/")[0] if uri.startswith(SCHEME) else None
