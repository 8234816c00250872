"""Small open test sets, made of templates and spoken by espeak-ng: the suite without gated data.

They show that the suite runs and what a model has learnt roughly; they are no benchmark that others report.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.suite.manifest import MANIFEST

VOICES = ("en-us", "en-us+f3")
_MATERIAL = Path(__file__).parents[1] / "templates" / "suite.yaml"
Speak = Callable[[str, str, Path], None]
"""Writes a text in a voice to a WAV file."""


@dataclass(frozen=True)
class Written:
    """A pair in words, with the prefix of both sides, if any; pairs of one `item` say nearly the same."""

    item: str
    kind: str
    good: str
    bad: str
    prefix: str | None = None
    key: str = ""


def build_suite(out: Path, speak: Speak | None, voices: Sequence[str] = VOICES) -> dict[str, int]:
    """Write the sets ``words``, ``grammar``, ``stories`` and ``topic-stories``, each in the layout ``pairs.jsonl``.

    The same files come out every time, as far as `speak` gives the same sound for the same text.

    Args:
        out: a folder that does not exist, or is empty.
        speak: what speaks; None writes text alone.
        voices: every pair is spoken in each of them.

    Returns:
        Name of each set → how many pairs it has in words.

    Raises:
        SpiritLMError: `out` holds something, or a text cannot be spoken.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpiritLMError(f"{out} is not empty: name a new folder with --out")
    found = sets()
    for name, pairs in found.items():
        folder = out / name
        folder.mkdir(parents=True)
        rows = list(_rows(pairs, folder, speak, voices))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    return {name: len(pairs) for name, pairs in found.items()}


def sets() -> dict[str, list[Written]]:
    """The test sets in words."""
    import yaml

    material = yaml.safe_load(_MATERIAL.read_text(encoding="utf-8"))
    words = [Written(good, "", good, bad) for good, bad in map(str.split, material["words"])]
    plots = material["stories"]["plots"]
    named = list(enumerate(material["stories"]["names"]))
    return {
        "words": words,
        "grammar": [Written(f"{i:03d}", *pair) for i, pair in enumerate(_grammar(material["grammar"]))],
        "stories": [_story(plots, p, n, name, None) for n, name in named for p in range(len(plots))],
        "topic-stories": [_story(plots, p, n, name, n + 1) for n, name in named for p in range(len(plots))],
    }


def _grammar(material: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
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


def _story(plots: Sequence[Sequence[str]], plot: int, number: int, name: str, away: int | None) -> Written:
    """A story with its ending; the wrong one is its own, or that of the plot so many places `away`."""
    *sentences, right, wrong = (sentence.replace("NAME", name) for sentence in plots[plot])
    if away is not None:
        wrong = plots[(plot + away) % len(plots)][4].replace("NAME", name)
    return Written(f"{plot:02d}", "", right, wrong, " ".join(sentences), f"{plot:02d}-{number}")


def _rows(
    pairs: Sequence[Written], folder: Path, speak: Speak | None, voices: Sequence[str]
) -> Iterator[dict[str, Any]]:
    spoken = _Spoken(folder, speak)
    for pair in pairs:
        for number, voice in enumerate(voices if speak else voices[:1]):
            sides = {"good": pair.good, "bad": pair.bad, "prefix": pair.prefix}
            forms = {field: spoken.side(text, voice) for field, text in sides.items() if text is not None}
            yield {"id": f"{pair.key or pair.item}/{number}", "item": pair.item, "kind": pair.kind, **forms}


class _Spoken:
    """The sound files of a set: one for each text and voice, numbered in order."""

    def __init__(self, folder: Path, speak: Speak | None) -> None:
        self._folder, self._speak, self._known = folder, speak, dict[tuple[str, str], str]()

    def side(self, text: str, voice: str) -> dict[str, str]:
        """A side for the manifest."""
        if self._speak is None:
            return {"text": text}
        if (text, voice) not in self._known:
            name = f"wav/{len(self._known):04d}.wav"
            (self._folder / "wav").mkdir(exist_ok=True)
            self._speak(text, voice, self._folder / name)
            self._known[text, voice] = name
        return {"text": text, "audio": self._known[text, voice]}


class Espeak:
    """The formant synthesizer espeak-ng, called as a program.

    Raises:
        SpiritLMError: it is not installed; when called, it cannot speak.
    """

    def __init__(self, words_per_minute: int = 150) -> None:
        self._program, self._rate = shutil.which("espeak-ng"), words_per_minute
        if self._program is None:
            raise SpiritLMError(
                "espeak-ng, which speaks the test sets, is not installed: apt-get install espeak-ng (Debian, Ubuntu), "
                "brew install espeak-ng (macOS), or build them as text alone with --text-only"
            )

    def __call__(self, text: str, voice: str, path: Path) -> None:
        """Write `text` to `path` as WAV, 22 050 Hz."""
        command = [str(self._program), "-v", voice, "-s", str(self._rate), "-w", str(path), "--stdin"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not path.exists() or not path.stat().st_size:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            raise SpiritLMError(f"espeak-ng cannot say {text!r:.60} in the voice {voice!r}: {said}")
