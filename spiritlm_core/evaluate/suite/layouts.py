"""The folders of benchmarks, as their authors publish them, and plain ones of our own.

A new task is a file whose reader makes one of the classes of tasks there are, or one of its own, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spiritlm_core.errors import SourceError
from spiritlm_core.evaluate.suite import official, own
from spiritlm_core.evaluate.suite.choices import CHOICES, read_choices
from spiritlm_core.evaluate.suite.task import SuiteTask

Reader = Callable[[str, Path], Sequence[SuiteTask]]
"""From a task's name and its folder to the task; nothing for a folder that is laid out in another way."""

READERS: dict[str, Reader] = {
    own.MANIFEST: own.read_manifest,
    "gold.csv, or dev/gold.csv (ZeroSpeech 2021, arXiv 2104.14700)": official.read_zerospeech,
    "sample_*.wav, or folders of them (SALMon, arXiv 2409.07437)": official.read_salmon,
    "*_correct.wav and *_incorrect.wav (spoken StoryCloze, arXiv 2305.13009)": official.read_spoken_stories,
    "a .csv with InputSentence1 (StoryCloze, arXiv 1604.01696)": official.read_story_table,
    CHOICES: read_choices,
    "data/test_data.csv (Fluent Speech Commands, arXiv 1904.03670)": official.read_fluent,
    "testing_list.txt (Speech Commands, arXiv 1804.03209)": official.read_speech_commands,
    "SPEAKER/CHAPTER/*.trans.txt (LibriSpeech)": official.read_librispeech,
    "train.jsonl and test.jsonl, labels.jsonl or prompts.jsonl with labels": own.read_labelled,
}
"""What a folder holds → what reads it; the first that finds a task has it."""

_NAMES = {"lexical": "swuggy", "syntactic": "sblimp"}


def read_task(name: str, folder: Path) -> list[SuiteTask]:
    """The task in `folder`; SALMon has one for each of its parts, ``NAME/PART``.

    Raises:
        SourceError: there is no such folder, no known layout, a table lacks a column or cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: --task takes NAME=FOLDER")
    if not (tasks := _known(name, folder)):
        raise SourceError(f"{folder} has none of the known layouts: {'; '.join(READERS)}")
    return tasks


def read_suite(folder: Path) -> list[SuiteTask]:
    """The tasks of every subfolder with a known layout, named after it; others are passed over.

    ``lexical`` and ``syntactic`` of ZeroSpeech are called ``swuggy`` and ``sblimp``.

    Raises:
        SourceError: there is no such folder, or no known layout in it.
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
