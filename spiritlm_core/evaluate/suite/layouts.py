"""The folders of benchmarks, as their authors publish them, and plain ones of our own.

A new task is a file whose reader makes one of the classes of tasks there are, or one of its own, and one line here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.evaluate.suite import official
from spiritlm_core.evaluate.suite.labels import CHOICES, Choice, ChoiceTask, LabelTask
from spiritlm_core.evaluate.suite.official import read_lines
from spiritlm_core.evaluate.suite.pairs import Labelled, Pair, Side
from spiritlm_core.evaluate.suite.styles import StyleTask
from spiritlm_core.evaluate.suite.task import SuiteTask
from spiritlm_core.evaluate.suite.zeroshot import PairTask
from spiritlm_core.split import HELD_OUT, draw_split

MANIFEST = "pairs.jsonl"
PROMPTS = "prompts.jsonl"
_FILES = ("labels.jsonl", "train.jsonl", "test.jsonl", PROMPTS)
_FORMS = {"text", "audio"}


def read_manifest(name: str, folder: Path) -> list[PairTask]:
    """The task of ``pairs.jsonl``; nothing if there is none. A line that is no pair is skipped with a reason.

    Raises SourceError: the file cannot be read.
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


def read_choices(name: str, folder: Path) -> list[ChoiceTask]:
    """The task of ``choices.jsonl``; nothing if there is none. Raises SourceError if it cannot be read."""
    path = folder / CHOICES
    if not path.is_file():
        return []
    questions, skipped = read_lines(path, _choice)
    return [ChoiceTask(name, CHOICES, folder, tuple(questions), skipped=tuple(skipped))]


def _choice(row: dict[str, Any], number: int) -> Choice:
    question, choices, answer = (row.get(field) for field in ("question", "choices", "answer"))
    if not isinstance(question, str) or not isinstance(choices, list) or len(choices) < 2:
        raise Rejection("question is a string, and choices is a list of at least two")
    if not all(isinstance(one, str) and one.strip() for one in choices):
        raise Rejection("a choice is empty, or no string")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise Rejection("answer is the place of the right one in choices, from 0")
    return Choice(str(row.get("id", number)), question, tuple(choices), answer)


Reader = Callable[[str, Path], Sequence[SuiteTask]]
"""From a task's name and its folder to the task; nothing for a folder that is laid out in another way."""

READERS: dict[str, Reader] = {
    MANIFEST: read_manifest,
    "gold.csv, or dev/gold.csv (ZeroSpeech 2021, arXiv 2104.14700)": official.read_zerospeech,
    "sample_*.wav, or folders of them (SALMon, arXiv 2409.07437)": official.read_salmon,
    "*_correct.wav and *_incorrect.wav (spoken StoryCloze, arXiv 2305.13009)": official.read_spoken_stories,
    "a .csv with InputSentence1 (StoryCloze, arXiv 1604.01696)": official.read_story_table,
    CHOICES: read_choices,
    "data/test_data.csv (Fluent Speech Commands, arXiv 1904.03670)": official.read_fluent,
    "testing_list.txt (Speech Commands, arXiv 1804.03209)": official.read_speech_commands,
    "SPEAKER/CHAPTER/*.trans.txt (LibriSpeech)": official.read_librispeech,
    "train.jsonl and test.jsonl, labels.jsonl or prompts.jsonl with labels": read_labelled,
}
"""What a folder holds → what reads it; the first that finds a task has it."""

_NAMES = {"lexical": "swuggy", "syntactic": "sblimp"}


def read_task(name: str, folder: Path) -> list[SuiteTask]:
    """The task in `folder`; SALMon has one for each of its parts, ``NAME/PART``.

    Raises SourceError: there is no such folder, no known layout, a table lacks a column or cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: --task takes NAME=FOLDER")
    if not (tasks := _known(name, folder)):
        raise SourceError(f"{folder} has none of the known layouts: {'; '.join(READERS)}")
    return tasks


def read_suite(folder: Path) -> list[SuiteTask]:
    """The tasks of every subfolder with a known layout, named after it; others are passed over.

    ``lexical`` and ``syntactic`` of ZeroSpeech are called ``swuggy`` and ``sblimp``. Raises SourceError: there is no
    such folder, or no known layout in it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: --suite takes the folder of several tasks")
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    tasks = [task for path in below for task in _known(_NAMES.get(path.name, path.name), path)]
    if not tasks:
        raise SourceError(f"{folder}: none of its subfolders has a known layout: {'; '.join(READERS)}")
    return tasks


def _known(name: str, folder: Path) -> list[SuiteTask]:
    return list(next((tasks for reader in READERS.values() if (tasks := reader(name, folder))), []))
