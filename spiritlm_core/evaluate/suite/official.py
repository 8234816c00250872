"""Readers of published benchmarks. Each gives no task for a folder that is laid out in another way."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.evaluate.suite.labels import LabelTask
from spiritlm_core.evaluate.suite.pairs import Labelled, Pair, Side
from spiritlm_core.evaluate.suite.task import Skipped
from spiritlm_core.evaluate.suite.transcripts import TranscriptTask, Utterance
from spiritlm_core.evaluate.suite.zeroshot import PairTask
from spiritlm_core.files import read_text
from spiritlm_core.intake.sources.columns import object_in
from spiritlm_core.metrics.distances import normalise

Row = Mapping[str, str]
_T = TypeVar("_T")


def read_table(path: Path, needed: Iterable[str]) -> list[Row]:
    """The rows of a CSV table, column → value; ``""`` where a row is too short.

    Raises SourceError: it cannot be read, or lacks a column of `needed`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), restval="")
    try:
        columns = reader.fieldnames or ()
        if missing := [column for column in needed if column not in columns]:
            raise SourceError(f"{path}: no column {missing[0]!r}; it has {', '.join(columns) or 'none'}")
        return list(reader)
    except csv.Error as error:
        raise SourceError(f"{path}: cannot be read as a table: {error}") from error


def read_lines(path: Path, parse: Callable[[dict[str, Any], int], _T]) -> tuple[list[_T], list[Skipped]]:
    """What `parse` makes of the JSON object in each line and its number from 1, and the lines that are none.

    Empty lines are passed over; `parse` raises Rejection for an object that is not what it should be. Raises
    SourceError: the file cannot be read.
    """
    found, skipped = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                found.append(parse(object_in(line), number))
            except Rejection as problem:
                skipped.append(Skipped(f"{path.name}:{number}", f"{path.name}, line {number}: {problem}"))
    return found, skipped


_SENTENCES = tuple(f"InputSentence{number}" for number in range(1, 5))
_ENDINGS = ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")
_SAMPLE = re.compile(r"sample_(\d+)(?:_.*)?\.(?:wav|flac)$")


def read_zerospeech(name: str, folder: Path) -> list[PairTask]:
    """Read sWUGGY or sBLIMP: a ``gold.csv`` here, in ``dev/`` or in ``test/``, sound files beside it.

    Rows of one `id` (and `type`, `subtype`) and `voice` with `correct` 1 and 0 are a pair; the voices of an `id` are
    one item, as in the official evaluation.
    """
    gold = next((path for part in (".", "dev", "test") if (path := folder / part / "gold.csv").exists()), None)
    if gold is None:
        return []
    rows = read_table(gold, ("id", "filename", "correct"))
    text = next((column for column in ("transcription", "word") if rows and column in rows[0]), "")
    sides: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        item = "/".join(filter(None, (row.get("type"), row.get("subtype"), row["id"])))
        sides[item, row.get("voice", "")][row["correct"].strip()].append(row)
    pairs, skipped = [], []
    for (item, voice), found in sides.items():
        key = f"{item}/{voice}" if voice else item
        if set(found) != {"0", "1"} or len(found["0"]) != len(found["1"]):
            counts = ", ".join(f"{len(rows)} with correct={value!r}" for value, rows in found.items())
            skipped.append(Skipped(key, f"{gold.name}: a pair has a row with correct=1 and one with 0, not {counts}"))
            continue
        for number, (good, bad) in enumerate(zip(found["1"], found["0"], strict=True)):
            named = f"{key}/{number}" if len(found["1"]) > 1 else key
            right, wrong = (_spoken(gold.parent, row, text) for row in (good, bad))
            pairs.append(Pair(named, right, wrong, kind=_kind(good), item=item))
    return [PairTask(name, "ZeroSpeech 2021", folder, tuple(pairs), skipped=tuple(skipped))]


def _spoken(folder: Path, row: Row, text: str) -> Side:
    file = folder / (row["filename"] or "?")
    return Side(row[text] or None if text else None, file if file.suffix else file.with_suffix(".wav"))


def _kind(row: Row) -> str:
    """The syntactic phenomenon, or whether the word occurs in LibriSpeech (`frequency`), as far as it is known."""
    if row.get("type"):
        return row["type"]
    try:
        return "in vocabulary" if float(row["frequency"]) > 0 else "out of vocabulary"
    except (KeyError, TypeError, ValueError):
        return ""


def read_salmon(name: str, folder: Path) -> list[PairTask]:
    """SALMon: ``sample_N_….wav``, two for each N, of which the first by name is right; or folders of them."""
    if any(_samples(folder)):
        return [_salmon_part(name, folder)]
    parts = sorted(path for path in folder.iterdir() if path.is_dir() and any(_samples(path)))
    return [_salmon_part(f"{name}/{path.name}", path) for path in parts]


def _samples(folder: Path) -> Iterable[tuple[int, Path]]:
    return ((int(match[1]), path) for path in folder.iterdir() if (match := _SAMPLE.match(path.name)))


def _salmon_part(name: str, folder: Path) -> PairTask:
    numbered: dict[int, list[Path]] = defaultdict(list)
    for number, path in sorted(_samples(folder)):
        numbered[number].append(path)
    pairs, skipped = [], []
    for number, files in numbered.items():
        if len(files) == 2:
            good, bad = (Side(audio=path) for path in files)
            pairs.append(Pair(str(number), good, bad, item=str(number)))
        else:
            skipped.append(Skipped(str(number), f"sample_{number}: {len(files)} files instead of 2"))
    return PairTask(name, "SALMon", folder, tuple(pairs), skipped=tuple(skipped))


def read_spoken_stories(name: str, folder: Path) -> list[PairTask]:
    """Spoken StoryCloze: ``N_correct`` and ``N_incorrect``, here or one folder below.

    With ``N_mutual`` the two are endings and this is the story in front of them; else they are whole stories.
    """
    right = [path for pattern in ("*_correct.*", "*/*_correct.*") for path in folder.glob(pattern)]
    stems = sorted({path.parent / path.stem.removesuffix("_correct") for path in right})
    if not stems:
        return []
    pairs, skipped = [], []
    for stem in stems:
        key = str(stem.relative_to(folder))
        good, bad, prefix = (_beside(stem, part) for part in ("correct", "incorrect", "mutual"))
        if good and bad:
            pairs.append(Pair(key, good, bad, prefix, item=key))
        else:
            skipped.append(Skipped(key, f"{stem.name}_incorrect.wav is missing"))
    return [PairTask(name, "spoken StoryCloze", folder, tuple(pairs), skipped=tuple(skipped))]


def _beside(stem: Path, part: str) -> Side | None:
    files = {suffix: stem.with_name(f"{stem.name}_{part}{suffix}") for suffix in (".wav", ".flac", ".txt")}
    audio = next((files[suffix] for suffix in (".wav", ".flac") if files[suffix].exists()), None)
    text = read_text(files[".txt"]).strip() if files[".txt"].exists() else None
    return Side(text, audio) if audio or text else None


def read_story_table(name: str, folder: Path) -> list[PairTask]:
    """StoryCloze as text: the first ``.csv`` with the columns ``InputSentence1`` … ``AnswerRightEnding``."""
    needed = (*_SENTENCES, *_ENDINGS, "AnswerRightEnding")
    for path in sorted(folder.glob("*.csv")):
        if _SENTENCES[0] in read_text(path).partition("\n")[0]:
            rows = read_table(path, needed)
            break
    else:
        return []
    pairs, skipped = [], []
    for number, row in enumerate(rows, 1):
        key = row.get("InputStoryid") or str(number)
        right = row["AnswerRightEnding"].strip()
        if right not in ("1", "2") or not all(row[column] for column in needed):
            skipped.append(Skipped(key, f"{path.name}: a sentence is missing, or AnswerRightEnding is not 1 or 2"))
            continue
        good, bad = (Side(row[column]) for column in (_ENDINGS if right == "1" else _ENDINGS[::-1]))
        pairs.append(Pair(key, good, bad, Side(" ".join(row[column] for column in _SENTENCES)), item=key))
    return [PairTask(name, "StoryCloze", folder, tuple(pairs), skipped=tuple(skipped))]


def read_speech_commands(name: str, folder: Path) -> list[LabelTask]:
    """Speech Commands (arXiv 1804.03209): a folder for each word, and ``testing_list.txt``."""
    listed = folder / "testing_list.txt"
    if not listed.is_file():
        return []
    test = set(read_text(listed).split())
    other = folder / "validation_list.txt"
    left_out = set(read_text(other).split()) if other.is_file() else set()
    rows = [
        Labelled(place, path.parent.name, Side(audio=path))
        for path in sorted(folder.glob("[!_]*/*.wav"))
        if (place := f"{path.parent.name}/{path.name}") not in left_out
    ]
    asked, train = (tuple(row for row in rows if (row.key in test) == wanted) for wanted in (True, False))
    return [LabelTask(name, "Speech Commands", folder, asked, train)]


def read_fluent(name: str, folder: Path) -> list[LabelTask]:
    """Fluent Speech Commands (arXiv 1904.03670): ``data/train_data.csv`` and ``data/test_data.csv``."""
    tables = {split: folder / "data" / f"{split}_data.csv" for split in ("train", "test")}
    if not all(path.is_file() for path in tables.values()):
        return []
    test, train = (tuple(_fluent(tables[split], folder)) for split in ("test", "train"))
    return [LabelTask(name, "Fluent Speech Commands", folder, test, train)]


def _fluent(path: Path, folder: Path) -> Iterator[Labelled]:
    """Many speakers say each command: one item."""
    needed = ("path", "transcription", "action", "object", "location")
    for row in read_table(path, needed):
        label, said = " ".join(row[column] for column in needed[2:] if row[column] != "none"), row["transcription"]
        yield Labelled(row["path"], label, Side(said, folder / row["path"]), said)


def read_librispeech(name: str, folder: Path) -> list[TranscriptTask]:
    """LibriSpeech: ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt``, and beside it the recordings it names.

    Raises SourceError: a transcript cannot be read.
    """
    files = sorted(folder.glob("*/*/*.trans.txt"))
    found, skipped = [], []
    for path in files:
        for line in read_text(path).splitlines():
            key, _, text = line.strip().partition(" ")
            audio = next((file for end in (".flac", ".wav") if (file := path.parent / f"{key}{end}").is_file()), None)
            if audio is not None and normalise(text):
                found.append(Utterance(key, text.lower() if text.isupper() else text, audio))
            elif key:
                skipped.append(Skipped(key, f"{path.name}: {key} has {'no words' if audio else 'no recording'}"))
    return [TranscriptTask(name, "LibriSpeech", folder, tuple(found), skipped=tuple(skipped))] if files else []
