"""Our own layouts of test sets: pairs and labelled examples as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiritlm_core.errors import Rejection
from spiritlm_core.evaluate.suite.labels import LabelTask
from spiritlm_core.evaluate.suite.pairs import Labelled, Pair, Side
from spiritlm_core.evaluate.suite.reading import read_lines
from spiritlm_core.evaluate.suite.styles import StyleTask
from spiritlm_core.evaluate.suite.zeroshot import PairTask
from spiritlm_core.split import HELD_OUT, draw_split

MANIFEST = "pairs.jsonl"
PROMPTS = "prompts.jsonl"
_FILES = ("labels.jsonl", "train.jsonl", "test.jsonl", PROMPTS)
_FORMS = {"text", "audio"}


def read_manifest(name: str, folder: Path) -> list[PairTask]:
    """The task of ``pairs.jsonl``; nothing if there is none. A line that is no pair is skipped with a reason.

    Raises:
        SourceError: the file cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
    pairs, skipped = read_lines(path, lambda row, number: _pair(row, number, folder))
    return [PairTask(name, MANIFEST, folder, tuple(pairs), skipped=tuple(skipped))]


def _pair(row: dict[str, Any], number: int, folder: Path) -> Pair:
    key = str(row.get("id", number))
    prefix = None if row.get("prefix") is None else _form(row["prefix"], "prefix", folder)
    good, bad = (_form(row.get(field), field, folder) for field in ("good", "bad"))
    return Pair(key, good, bad, prefix, str(row.get("kind", "")), str(row.get("item", key)))


def _form(value: Any, field: str, folder: Path) -> Side:
    if not isinstance(value, dict) or not value.keys() & _FORMS:
        raise Rejection(f'{field} is not an object such as {{"text": …, "audio": …}}')
    if wrong := [form for form in _FORMS & value.keys() if not isinstance(value[form], str)]:
        raise Rejection(f"{field}: {wrong[0]} is not a string")
    text, audio = value.get("text"), value.get("audio")
    if audio is not None and audio.startswith("["):
        return Side(text, None, audio)
    return Side(text, None if audio is None else folder / audio)


def read_labelled(name: str, folder: Path) -> list[LabelTask] | list[StyleTask]:
    """Read ``train.jsonl`` and ``test.jsonl``, ``labels.jsonl``, or for styles ``prompts.jsonl``.

    A line has `label` (or `intent`), `text` (or `sentence`), `audio` (or the first of `recordings`, as SLURP has it)
    and perhaps `item` and `split`; where neither it nor the file's name says which split a line is in, its content
    draws it.
    """
    files = [path for file in _FILES if (path := folder / file).is_file()]
    if not files:
        return []
    read = [read_lines(path, lambda row, number, path=path: _row(row, number, path)) for path in files]  # type: ignore[misc]
    rows, skipped = ([one for part in parts for one in part] for parts in zip(*read, strict=True))
    test, train = (tuple(row for said, row in rows if said == split) for split in ("test", "train"))
    about = (name, "labelled JSON lines", folder, test, train)
    if (folder / PROMPTS).is_file():
        return [StyleTask(*about, skipped=tuple(skipped))]
    return [LabelTask(*about, skipped=tuple(skipped))]


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
    return "train" if draw_split(json.dumps(row, sort_keys=True), "", 0.5) == "train" else "test"
