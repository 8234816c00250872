"""Test sets of labelled texts and recordings: our own JSON lines, and two published layouts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.pairs import Side
from spiritlm_core.evaluate.suite.reading import read_lines, read_table, read_text
from spiritlm_core.evaluate.suite.task import Bench, Skipped, by_turns
from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.finetune.reading import HELD_OUT
from spiritlm_core.finetune.rows import split_of
from spiritlm_core.lm.generate.prompts import Kind
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
        item: examples of one item say nearly the same, so that they are resampled together; ``""``: like no other.
    """

    key: str
    label: str
    side: Side
    item: str = ""


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
        train = labels_by_turns(self.train, seed, self.name, "train")[: _POOL * max(1, len(self.labels))]
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


def labels_by_turns(rows: Sequence[Labelled], *key: str | int) -> list[Labelled]:
    """In an order drawn by `key` in which the labels take turns."""
    return by_turns(rows, lambda row: row.label, lambda row: key_of(*key, row.key))


def read_labelled(name: str, folder: Path) -> list[LabelTask]:
    """Read ``train.jsonl`` and ``test.jsonl``, ``labels.jsonl``, or for styles ``prompts.jsonl``.

    A line has `label` (or `intent`), `text` (or `sentence`), `audio` (or the first of `recordings`, as SLURP has it)
    and perhaps `item` and `split`; where neither it nor the file's name says which split a line is in, its content
    draws it.
    """
    files = [path for file in _FILES if (path := folder / file).is_file()]
    if not files:
        return []
    about: Literal["labels", "style"] = "style" if (folder / PROMPTS).is_file() else "labels"
    read = [read_lines(path, lambda row, number, path=path: _row(row, number, path)) for path in files]  # type: ignore[misc]
    rows, skipped = ([one for part in parts for one in part] for parts in zip(*read, strict=True))
    return [_task(name, "labelled JSON lines", folder, rows, skipped, about)]


def _row(row: dict[str, Any], number: int, path: Path) -> tuple[str, Labelled]:
    label, text = row.get("label", row.get("intent")), row.get("text", row.get("sentence"))
    audio = row.get("audio", _first(row.get("recordings")))
    if not isinstance(label, str) or not label.strip():
        raise Rejection("there is no label")
    if not isinstance(text, str | None) or not isinstance(audio, str | None) or (text is None and audio is None):
        raise Rejection("text and audio are strings, and there is at least one of them")
    side, item = _side(text, audio, path.parent), str(row.get("item", ""))
    return _split(row, path), Labelled(f"{path.stem}:{number}", label.strip(), side, item)


def _first(recordings: Any) -> Any:
    first = recordings[0] if isinstance(recordings, list) and recordings else None
    return first.get("file") if isinstance(first, dict) else None


def _side(text: str | None, audio: str | None, folder: Path) -> Side:
    if audio is None or audio.startswith("["):
        return Side(text, None, audio)
    places = (folder / audio, folder / "slurp_real" / audio, folder.parent.parent / "audio" / "slurp_real" / audio)
    return Side(text, next((path for path in places if path.is_file()), places[0]))


def _split(row: Mapping[str, Any], path: Path) -> str:
    said = row.get("split")
    if said is not None or path.stem in ("train", "test"):
        name = str(said if said is not None else path.stem).lower()
        if name != "train" and name not in HELD_OUT:
            raise Rejection(f"split {name!r} is neither train nor test")
        return "train" if name == "train" else "test"
    return "train" if split_of(json.dumps(row, sort_keys=True), None, _SPLIT) == "train" else "test"


def read_speech_commands(name: str, folder: Path) -> list[LabelTask]:
    """Speech Commands (arXiv 1804.03209): a folder for each word, and ``testing_list.txt``."""
    listed = folder / "testing_list.txt"
    if not listed.is_file():
        return []
    test = set(read_text(listed).split())
    other = folder / "validation_list.txt"
    left_out = set(read_text(other).split()) if other.is_file() else set()
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
    """Many speakers say each command: one item."""
    needed = ("path", "transcription", "action", "object", "location")
    for row in read_table(path, needed):
        label, said = " ".join(row[column] for column in needed[2:] if row[column] != "none"), row["transcription"]
        yield Labelled(row["path"], label, Side(said, folder / row["path"]), said)


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
