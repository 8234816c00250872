"""Small open test sets, made of templates and spoken by eSpeak NG: the suite without gated data.

They show that the suite runs and what a model has learnt roughly; they are no benchmark that others report.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.voices.espeak import Voice
from spiritlm_core.audio.waveform import as_waveform
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.config import KINDS, PAIRS, VOICES
from spiritlm_core.evaluate.suite import material
from spiritlm_core.evaluate.suite.labels import CHOICES
from spiritlm_core.evaluate.suite.layouts import MANIFEST, PROMPTS
from spiritlm_core.evaluate.suite.material import Said
from spiritlm_core.evaluate.suite.pairs import Pair
from spiritlm_core.files import check_new, new_folder
from spiritlm_core.lm.generate.fewshot import by_turns
from spiritlm_core.tokens.counter import key_of

_SPEAKER = 1001  # the first of the transcribed voices: LibriSpeech numbers its speakers
_T = TypeVar("_T")
Speak = Callable[[str, Voice, Path], None]  # writes a text in a voice to a WAV file


def build_suite(
    out: Path,
    speak: Speak | None,
    voices: Sequence[str] = VOICES,
    kinds: Sequence[str] = KINDS,
    items: int | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Write small test sets into a new or empty folder `out`, each into a folder of its name.

    The same files come out every time, as far as `speak` gives the same sound for the same text; without it text alone
    is written, and no ``transcripts``. Every pair is spoken in each of `voices`; in the other sets they take turns. At
    most `items` of each set, or of each of its parts, are drawn by the seed, the least alike first. Returns the name of
    each set → how many pairs, labelled texts, utterances or questions it has in words. Raises SpiritLMError: `out`
    holds something, there is no such kind or voice, or a text cannot be spoken.
    """
    check_new(out)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise SpiritLMError(f"there is no set {unknown[0]!r}; there are {', '.join(KINDS)}")
    if not voices:
        raise SpiritLMError("name at least one voice")
    wanted = [kind for kind in KINDS if kind in kinds and (speak or kind != "transcripts")]
    if not wanted:
        raise SpiritLMError("transcripts are recordings with what they say: there are none in text alone")
    try:
        with new_folder(out) as folder:
            builder = _Builder(folder, speak, voices, items, seed)
            return {kind: builder.build(kind) for kind in wanted}
    except OSError as error:
        raise SpiritLMError(f"{out}: the sets cannot be written: {error}") from error


class _Builder:
    def __init__(self, out: Path, speak: Speak | None, voices: Sequence[str], items: int | None, seed: int) -> None:
        self._out, self._speak, self._voices, self._items, self._seed = out, speak, voices, items, seed

    def build(self, kind: str) -> int:
        """Write one set; returns its size."""
        folder = self._out / kind
        folder.mkdir(parents=True)
        if kind in PAIRS:
            return self._pairs(folder, material.pair_sets()[kind])
        if kind == "transcripts":
            return self._transcripts(folder)
        if kind == "choices":
            asked = self._drawn(material.questions(), self._items, lambda one: one.key, kind)
            _write(folder / CHOICES, (one.to_dict() for one in asked))
            return len(asked)
        return self._labelled(kind, folder, material.intents() if kind == "intents" else material.sentiments())

    def _drawn(self, rows: Sequence[_T], most: int | None, item: Callable[[_T], Any], *name: str) -> list[_T]:
        """At most so many rows, in their order, drawn by the seed; items, of which all rows are alike, take turns."""
        numbers = by_turns(range(len(rows)), lambda i: item(rows[i]), lambda i: key_of(self._seed, *name, i))
        return [rows[i] for i in sorted(numbers[:most])]

    def _pairs(self, folder: Path, pairs: Sequence[Pair]) -> int:
        chosen = self._drawn(pairs, self._items, lambda pair: pair.item, folder.name)
        _write(folder / MANIFEST, self._pair_rows(folder, chosen))
        return len(chosen)

    def _pair_rows(self, folder: Path, pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
        spoken = _Spoken(folder, self._speak)
        for pair in pairs:
            for number, voice in enumerate(self._voices if self._speak else self._voices[:1]):
                sides = {"good": pair.good, "bad": pair.bad, "prefix": pair.prefix}
                forms = {field: spoken.side(side.text or "", Voice(voice)) for field, side in sides.items() if side}
                yield {"id": f"{pair.key}/{number}", "item": pair.item, "kind": pair.kind, **forms}

    def _labelled(self, kind: str, folder: Path, rows: Sequence[Said]) -> int:
        """Classification as ``train.jsonl`` and ``test.jsonl``, styles as ``prompts.jsonl``."""
        spoken, chosen = _Spoken(folder, self._speak), self._of_each_label(kind, rows)
        lines = [
            {**row.about(), **spoken.side(row.text, row.voice(self._turn(number)))} for number, row in enumerate(chosen)
        ]
        if kind == "styles":
            _write(folder / PROMPTS, lines)
        else:
            for part in ("train", "test"):
                _write(folder / f"{part}.jsonl", (line for line in lines if line["split"] == part))
        return len(chosen)

    def _of_each_label(self, kind: str, rows: Sequence[Said]) -> list[Said]:
        """As many of each label and part as `items` allows; at least one."""
        if self._items is None:
            return list(rows)
        groups: dict[tuple[str, str], list[Said]] = {}
        for row in rows:
            groups.setdefault((row.split, row.label), []).append(row)
        most = max(1, self._items // len({label for _, label in groups}))
        drawn = (self._drawn(group, most, lambda row: row.item, kind) for group in groups.values())
        return [row for group in drawn for row in group]

    def _turn(self, number: int) -> str:
        return self._voices[number % len(self._voices)]

    def _transcripts(self, folder: Path) -> int:
        """LibriSpeech's layout: ``SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac`` and ``….trans.txt``."""
        chapters = list(enumerate(material.transcripts()))
        told = [(chapter, text) for chapter, texts in chapters for text in texts]
        chosen = self._drawn(told, self._items, lambda one: one[1], folder.name)
        for chapter in dict.fromkeys(chapter for chapter, _ in chosen):
            self._chapter(folder, chapter, [text for other, text in chosen if other == chapter])
        return len(chosen)

    def _chapter(self, folder: Path, chapter: int, texts: Sequence[str]) -> None:
        speaker = str(_SPEAKER + chapter % len(self._voices))
        place, lines = folder / speaker / f"{chapter:03d}", []
        place.mkdir(parents=True)
        for number, text in enumerate(texts):
            key = f"{speaker}-{chapter:03d}-{number:04d}"
            raw = place / f"{key}.wav"
            assert self._speak is not None  # noqa: S101 - there is no such set without a voice
            self._speak(text, Voice(self._turn(chapter)), raw)
            raw.with_suffix(".flac").write_bytes(encode_flac(as_waveform(raw)))
            raw.unlink()
            lines.append(f"{key} {''.join(c for c in text.upper() if c.isalnum() or c in ' ' + chr(39))}\n")
        (place / f"{speaker}-{chapter:03d}.trans.txt").write_text("".join(lines), encoding="utf-8")


class _Spoken:
    """The sound files of a set: one for each text and voice, numbered in order."""

    def __init__(self, folder: Path, speak: Speak | None) -> None:
        self._folder, self._speak, self._known = folder, speak, dict[tuple[str, Voice], str]()

    def side(self, text: str, voice: Voice) -> dict[str, str]:
        """A side for the manifest."""
        if self._speak is None:
            return {"text": text}
        if (text, voice) not in self._known:
            name = f"wav/{len(self._known):04d}.wav"
            (self._folder / "wav").mkdir(exist_ok=True)
            self._speak(text, voice, self._folder / name)
            self._known[text, voice] = name
        return {"text": text, "audio": self._known[text, voice]}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
