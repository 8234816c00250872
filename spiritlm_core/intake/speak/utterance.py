"""The address of an utterance that a machine speaks: it says all that its sound depends on.

    speak://espeak/en-us+f3?pitch=40&rate=150&text=press+one

So every machine of a cluster can make it, and it is known, counted and cached before anybody has made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode

SCHEME = "speak://"


@dataclass(frozen=True)
class Utterance:
    """A text and how it is spoken."""

    engine: str  # its kind: espeak, piper, flite or command
    voice: str  # its name for that engine
    text: str  # what is said
    settings: Mapping[str, str] = field(default_factory=dict)  # of the engine, and what is done to the sound

    @property
    def uri(self) -> str:
        """Its address, the same for equal utterances."""
        said = sorted({**self.settings, "text": self.text}.items())
        return f"{SCHEME}{self.engine}/{quote(self.voice, safe='+')}?{urlencode(said)}"

    @property
    def digest(self) -> str:
        """sha256 (hex) of all that the sound depends on: of a model its content, not where that was found."""
        known = {name: value for name, value in self.settings.items() if name != "model"}
        return hashlib.sha256(Utterance(self.engine, self.voice, self.text, known).uri.encode()).hexdigest()


def parse_utterance(uri: str) -> Utterance:
    """The utterance of an address that :attr:`Utterance.uri` made."""
    place, _, said = uri.removeprefix(SCHEME).partition("?")
    engine, _, voice = place.partition("/")
    settings = dict(parse_qsl(said, keep_blank_values=True))
    return Utterance(engine, unquote(voice), settings.pop("text"), settings)


def engine_of(uri: str) -> str | None:
    """The engine that speaks what lies at `uri`; None for a file."""
    return uri.removeprefix(SCHEME).partition("/")[0] if uri.startswith(SCHEME) else None
