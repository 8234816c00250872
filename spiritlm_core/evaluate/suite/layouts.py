"""The folders of benchmarks, as their authors publish them, and plain ones of our own.

* ``pairs.jsonl``, ``choices.jsonl``, ``train.jsonl`` and ``test.jsonl`` or ``labels.jsonl``, ``prompts.jsonl``: our
  own, see ``docs/evaluation.md``;
* ``gold.csv`` beside sound files: sWUGGY and sBLIMP of ZeroSpeech 2021 (arXiv 2104.14700);
* ``sample_N_….wav``: a part of SALMon (arXiv 2409.07437), or a folder of parts;
* ``N_correct.wav``, ``N_incorrect.wav``: spoken StoryCloze and Topic StoryCloze (arXiv 2305.13009), also with
  ``N_mutual.wav`` for the story and ``.txt`` files;
* a table with ``InputSentence1`` …: the StoryCloze test as text (arXiv 1604.01696);
* ``SPEAKER/CHAPTER/….trans.txt``: LibriSpeech;
* ``testing_list.txt``: Speech Commands (arXiv 1804.03209); ``data/test_data.csv``: Fluent Speech Commands (1904.03670).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spiritlm_core.errors import SourceError
from spiritlm_core.evaluate.suite import official
from spiritlm_core.evaluate.suite.choices import CHOICES, read_choices
from spiritlm_core.evaluate.suite.labelled import read_fluent, read_labelled, read_speech_commands
from spiritlm_core.evaluate.suite.manifest import MANIFEST, read_manifest
from spiritlm_core.evaluate.suite.task import SuiteTask
from spiritlm_core.evaluate.suite.transcripts import read_librispeech

_NAMES = {"lexical": "swuggy", "syntactic": "sblimp"}
_KNOWN = (
    f"{MANIFEST}; gold.csv, or dev/gold.csv (ZeroSpeech 2021); sample_*.wav, or folders of them (SALMon); "
    "*_correct.wav and *_incorrect.wav (spoken StoryCloze); a .csv with InputSentence1 (StoryCloze); "
    "SPEAKER/CHAPTER/*.trans.txt (LibriSpeech); train.jsonl and test.jsonl, labels.jsonl or prompts.jsonl with labels; "
    f"testing_list.txt (Speech Commands); data/test_data.csv (Fluent Speech Commands); {CHOICES}"
)
Reader = Callable[[str, Path], Sequence[SuiteTask]]
_READERS: tuple[Reader, ...] = (
    read_manifest,
    official.read_zerospeech,
    official.read_salmon,
    official.read_spoken_stories,
    official.read_story_table,
    read_choices,
    read_fluent,
    read_speech_commands,
    read_librispeech,
    read_labelled,
)


def read_task(name: str, folder: Path) -> list[SuiteTask]:
    """The task in `folder`; SALMon has one for each of its parts, ``NAME/PART``.

    Raises:
        SourceError: there is no such folder, no known layout, a table lacks a column or cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: --task takes NAME=FOLDER")
    if not (found := _known(name, folder)):
        raise SourceError(f"{folder} has none of the known layouts: {_KNOWN}")
    return found


def read_suite(folder: Path) -> list[SuiteTask]:
    """The tasks of every subfolder with a known layout, named after it; others are passed over.

    ``lexical`` and ``syntactic`` of ZeroSpeech are called ``swuggy`` and ``sblimp``.

    Raises:
        SourceError: there is no such folder, or no known layout in it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: --suite takes the folder of several tasks")
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [task for path in below for task in _known(_NAMES.get(path.name, path.name), path)]
    if not found:
        raise SourceError(f"{folder}: none of its subfolders has a known layout: {_KNOWN}")
    return found


def _known(name: str, folder: Path) -> list[SuiteTask]:
    return list(next((found for reader in _READERS if (found := reader(name, folder))), []))
