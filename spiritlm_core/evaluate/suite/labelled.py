"""Test sets of labelled texts and recordings: our own JSON lines, and two published layouts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.evaluate.suite.pairs import Side
from spiritlm_core.evaluate.suite.task import Bench, Skipped
from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.finetune.reading import HELD_OUT
from spiritlm_core.finetune.rows import split_of
from spiritlm_core.lm.prompts import Kind
from spiritlm_core.tokens.counter import key_of

PROMPTS = "prompts.jsonl"
_FILES = ("labels.jsonl", "train.jsonl", "test.jsonl", PROMPTS)
_SPLIT = SplitConfig(held_out_share=0.5)
_POOL = 16  # train rows of each label that solved examples are drawn from, and judges are fitted on


@dataclass(frozen=True)
class Labelled:
    """A labelled text, recording, or both.

    Attributes:
        key: names it within its task.
        label: what it is.
        side: its text and its recording.
    """

    key: str
    label: str
    side: Side


@dataclass(frozen=True)
class LabelTask:
    """A task made of labelled examples, see :class:`spiritlm_core.evaluate.suite.task.SuiteTask`.

    Attributes:
        name: as the user calls it.
        layout: how its folder is laid out.
        folder: where it was read from.
        test: what is asked.
        train: where solved examples come from.
        about: ``labels``: which label is right; ``style``: whether a continuation keeps it.
        skipped: what looked like an example and is none.
    """

    name: str
    layout: str
    folder: Path
    test: tuple[Labelled, ...]
    train: tuple[Labelled, ...]
    about: Literal["labels", "style"] = "labels"
    skipped: tuple[Skipped, ...] = ()

    @property
    def entries(self) -> int:
        """How many examples are asked."""
        return len(self.test)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, sorted."""
        return tuple(sorted({row.label for row in (*self.test, *self.train)}))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The modalities that at least one example comes in."""
        both: tuple[Kind, ...] = ("text", "speech")
        return tuple(kind for kind in both if any(row.side.has(kind) for row in self.test))

    def drawn(self, limit: int | None, seed: int) -> LabelTask:
        """With at most `limit` test examples, and a bounded number of train examples of each label."""
        kept = {row.key for row in sorted(self.test, key=lambda row: key_of(seed, self.name, row.key))[:limit]}
        train = by_turns(self.train, (seed, self.name, "train"))[: _POOL * max(1, len(self.labels))]
        return replace(self, test=tuple(row for row in self.test if row.key in kept), train=tuple(train))

    def recordings(self) -> list[Path]:
        """Its sound files."""
        return [row.side.audio for row in (*self.test, *self.train) if row.side.audio is not None]

    def measures(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """By label likelihood, or by judging continuations."""
        if self.about == "style":
            from spiritlm_core.evaluate.suite.styles import measure_styles

            return measure_styles(self, bench)
        from spiritlm_core.evaluate.suite.labels import measure_labels

        return measure_labels(self, bench)


def by_turns(rows: Sequence[Labelled], key: tuple[str | int, ...]) -> list[Labelled]:
    """In an order drawn by `key` in which the labels take turns."""
    drawn = sorted(rows, key=lambda row: key_of(*key, row.key))
    seen: dict[str, int] = {}
    turns = []
    for row in drawn:
        turns.append(seen.get(row.label, 0))
        seen[row.label] = turns[-1] + 1
    return [row for _, row in sorted(zip(turns, drawn, strict=True), key=lambda pair: pair[0])]


def read_labelled(name: str, folder: Path) -> list[LabelTask]:
    """Read ``train.jsonl`` and ``test.jsonl``, ``labels.jsonl``, or for styles ``prompts.jsonl``.

    A line has `label` (or `intent`), `text` (or `sentence`), `audio` (or the first of `recordings`, as SLURP has it)
    and perhaps `split`; where neither it nor the file's name says which split a line is in, its content draws it.
    """
    files = [path for file in _FILES if (path := folder / file).is_file()]
    if not files:
        return []
    about: Literal["labels", "style"] = "style" if (folder / PROMPTS).is_file() else "labels"
    rows, skipped = [], []
    for path in files:
        for number, line in enumerate(_read(path).splitlines(), 1):
            if line.strip():
                try:
                    rows.append(_row(line, f"{path.stem}:{number}", path))
                except Rejection as problem:
                    skipped.append(Skipped(f"{path.name}:{number}", f"{path.name}, line {number}: {problem}"))
    return [_task(name, "labelled JSON lines", folder, rows, skipped, about)]


def _row(line: str, key: str, path: Path) -> tuple[str, Labelled]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Rejection(f"no JSON: {error}") from error
    if not isinstance(row, dict):
        raise Rejection("not an object with label")
    label, text = row.get("label", row.get("intent")), row.get("text", row.get("sentence"))
    audio = row.get("audio", _first(row.get("recordings")))
    if not isinstance(label, str) or not label.strip():
        raise Rejection("there is no label")
    if not isinstance(text, str | None) or not isinstance(audio, str | None) or (text is None and audio is None):
        raise Rejection("text and audio are strings, and there is at least one of them")
    return _split(row.get("split"), path, line), Labelled(key, label.strip(), _side(text, audio, path.parent))


def _first(recordings: Any) -> Any:
    return recordings[0].get("file") if isinstance(recordings, list) and recordings else None


def _side(text: str | None, audio: str | None, folder: Path) -> Side:
    if audio is None or audio.startswith("["):
        return Side(text, None, audio)
    places = (folder / audio, folder / "slurp_real" / audio, folder.parent.parent / "audio" / "slurp_real" / audio)
    return Side(text, next((path for path in places if path.is_file()), places[0]))


def _split(said: Any, path: Path, line: str) -> str:
    if said is not None or path.stem in ("train", "test"):
        name = str(said if said is not None else path.stem).lower()
        if name != "train" and name not in HELD_OUT:
            raise Rejection(f"split {name!r} is neither train nor test")
        return "train" if name == "train" else "test"
    return "train" if split_of(line, None, _SPLIT) == "train" else "test"


def read_speech_commands(name: str, folder: Path) -> list[LabelTask]:
    """Speech Commands (arXiv 1804.03209): a folder for each word, and ``testing_list.txt``."""
    listed = folder / "testing_list.txt"
    if not listed.is_file():
        return []
    test = set(_read(listed).split())
    other = folder / "validation_list.txt"
    left_out = set(_read(other).split()) if other.is_file() else set()
    rows = [
        ("test" if place in test else "train", Labelled(place, path.parent.name, Side(audio=path)))
        for path in sorted(folder.glob("[!_]*/*.wav"))
        if (place := f"{path.parent.name}/{path.name}") not in left_out
    ]
    return [_task(name, "Speech Commands", folder, rows)]


def read_fluent(name: str, folder: Path) -> list[LabelTask]:
    """Fluent Speech Commands (arXiv 1904.03670): ``data/train_data.csv`` and ``data/test_data.csv``."""
    tables = {split: folder / "data" / f"{split}_data.csv" for split in ("train", "test")}
    if not all(path.is_file() for path in tables.values()):
        return []
    rows = [(split, row) for split, path in tables.items() for row in _fluent(path, folder)]
    return [_task(name, "Fluent Speech Commands", folder, rows)]


def _fluent(path: Path, folder: Path) -> Iterator[Labelled]:
    reader = csv.DictReader(_read(path).splitlines())
    needed = ("path", "transcription", "action", "object", "location")
    if missing := [column for column in needed if column not in (reader.fieldnames or ())]:
        raise SourceError(f"{path}: no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ()) or 'none'}")
    for row in reader:
        label = " ".join(row[column] for column in needed[2:] if row[column] != "none")
        yield Labelled(row["path"], label, Side(row["transcription"], folder / row["path"]))


def _task(
    name: str,
    layout: str,
    folder: Path,
    rows: Iterable[tuple[str, Labelled]],
    skipped: Iterable[Skipped] = (),
    about: Literal["labels", "style"] = "labels",
) -> LabelTask:
    parts: Mapping[str, list[Labelled]] = {"train": [], "test": []}
    for split, row in rows:
        parts[split].append(row)
    return LabelTask(name, layout, folder, tuple(parts["test"]), tuple(parts["train"]), about, tuple(skipped))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as text: {error}") from error
