"""How far the word boundaries are off: fitted aligners and a proportional split, against two kinds of truth.

    python benchmarks/align.py --language en --work /tmp/align-benchmark

Fits an aligner on the train split of the telephone prompts, with and without the teacher, aligns the held-out
prompts through the `words` stage, and prints boundary errors in milliseconds:

* clips: held-out prompts trimmed by energy and joined with known gaps; the edges of every clip are exact.
* pocketsphinx: forced alignment of the held-out prompts by a GMM aligner (English only), every boundary.

What was fitted stays in the work folder and is used again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from spiritlm_core.align.config import AlignerFitConfig, WordsConfig
from spiritlm_core.align.fit import AlignerFit
from spiritlm_core.align.stage import WordsStage
from spiritlm_core.align.teacher import Pocketsphinx, available, spoken
from spiritlm_core.align.training import loud_edges
from spiritlm_core.audio.codec import decode_flac, encode_flac
from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AUDIO, AudioStage
from spiritlm_core.intake.recordings import list_items
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.words import words_of

Row = dict[str, Any]  # of the table `audio`
Edges = list[tuple[float | None, float | None]]  # start and end of every word in seconds; None where not known
Found = list[tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """One utterance with what is known of its word boundaries."""

    row: Row
    truth: Edges


def audio_table(language: str, work: Path) -> pa.Table:
    """The telephone prompts as rows of the `audio` table."""
    path = work / f"audio-{language}.parquet"
    if not path.exists():
        items = list_items(PromptsSource(kind="prompts", prompts=language), language, StatCache())
        stage = AudioStage(AudioConfig(), {})
        stage.setup()
        pq.write_table(stage.process(items), path)
    return pq.read_table(path, schema=AUDIO)


def fitted(audio: pa.Table, teacher: str, folder: Path) -> Path:
    """A fitted aligner."""
    out = folder / f"aligner-{teacher}"
    if not (out / "config.json").exists():
        work = folder / f"work-{teacher}"
        for made in (out, work):
            made.mkdir(parents=True, exist_ok=True)
        wall, cpu = time.perf_counter(), time.process_time()
        stage = AlignerFit(AlignerFitConfig(teacher=teacher), {})
        summary = stage.build({"audio": TableView.of(audio)}, out, work, lambda *_: None)
        print(f"fitted {teacher}: {time.perf_counter() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU in the")
        print(f"  main process; {summary}")
    return out


def concatenated(rows: Sequence[Row], count: int, per_case: int) -> list[Case]:
    """Cases of several trimmed clips with random gaps between them."""
    random = np.random.default_rng(0)
    cases = []
    for index in range(count):
        chosen = random.choice(len(rows), per_case, replace=False)
        cases.append(_joined([rows[i] for i in chosen], random, f"case-{index}"))
    return cases


def _joined(rows: Sequence[Row], random: np.random.Generator, key: str) -> Case:
    pieces, texts, truth, length = [], [], list[tuple[float | None, float | None]](), 0
    for row in rows:
        gap = round(random.uniform(0.1, 0.6) * 16_000)
        clip = _trimmed(decode_flac(row["audio"]))
        pieces += [random.normal(0, 1e-4, gap).astype(np.float32), clip]
        start, end = (length + gap) / 16_000, (length + gap + len(clip)) / 16_000
        words = len(words_of(row["text"], row["language"]))
        truth += [(start if i == 0 else None, end if i == words - 1 else None) for i in range(words)]
        texts.append(row["text"])
        length += gap + len(clip)
    waveform = np.concatenate([*pieces, np.zeros(3200, np.float32)])
    return Case(_row(rows[0], key, " ".join(texts), waveform), truth)


def _trimmed(waveform: np.ndarray) -> np.ndarray:
    start, end = loud_edges(waveform) or (0.0, len(waveform) / 16_000)
    return waveform[round(start * 16_000) : round(end * 16_000)]


def _row(like: Row, key: str, text: str, waveform: np.ndarray) -> Row:
    changed = {"utterance_id": key, "recording_id": key, "text": text, "duration": len(waveform) / 16_000}
    return {**like, **changed, "audio": encode_flac(waveform)}


def forced(rows: Sequence[Row]) -> list[Case]:
    """Cases with the boundaries that pocketsphinx finds."""
    aligner, cases = Pocketsphinx(), []
    for row in rows:
        times = aligner.align(decode_flac(row["audio"]), spoken(row["text"], "en"))
        if times is not None and len(times) == len(words_of(row["text"], "en")):
            cases.append(Case(row, [(time.start, time.end) for time in times]))
    return cases


def aligned(cases: Sequence[Case], aligner: Path) -> list[Found | None]:
    """What the `words` stage says; None for a rejected row."""
    stage = WordsStage(WordsConfig(mode="given"), {"aligner": aligner})
    stage.setup()
    rows = stage.process(table_of([case.row for case in cases], AUDIO)).to_pylist()
    return [[(w["start"], w["end"]) for w in row["words"]] if row["words"] else None for row in rows]


def proportional(cases: Sequence[Case]) -> list[Found | None]:
    """The loud part of the utterance split in proportion to the letters of the words."""
    answers: list[Found | None] = []
    for case in cases:
        waveform = decode_flac(case.row["audio"])
        start, end = loud_edges(waveform) or (0.0, len(waveform) / 16_000)
        letters = [sum(map(len, word.spoken)) for word in words_of(case.row["text"], case.row["language"])]
        points = start + (end - start) * np.concatenate([[0], np.cumsum(letters)]) / sum(letters)
        answers.append([(float(a), float(b)) for a, b in pairwise(points)])
    return answers


def errors(cases: Sequence[Case], answers: Sequence[Found | None], side: int) -> np.ndarray:
    """Differences in milliseconds at the starts (0) or the ends (1) of words."""
    return np.array(
        [
            1000 * (found[side] - edge)
            for case, answer in zip(cases, answers, strict=True)
            if answer is not None
            for true, found in zip(case.truth, answer, strict=True)
            if (edge := true[side]) is not None
        ]
    )


def report(truth: str, method: str, cases: Sequence[Case], answers: Sequence[Found | None]) -> None:
    """One row of the table."""
    cells = []
    for side in (0, 1):
        off = errors(cases, answers, side)
        cells.append(f"{np.median(abs(off)):.0f} | {np.quantile(abs(off), 0.9):.0f} | {np.median(off):+.0f}")
    rejected = sum(answer is None for answer in answers)
    print(f"| {truth} | {method} | {cells[0]} | {cells[1]} | {len(errors(cases, answers, 0))} | {rejected} |")


def main(language: str = "en", work: Path = Path("align-benchmark")) -> None:
    """Judge aligners of one of the languages that there are prompts in: en, es, fr, it, ru."""
    work.mkdir(parents=True, exist_ok=True)
    audio = audio_table(language, work)
    teachers = ["pocketsphinx", "none"] if available(language) else ["none"]
    models = {t: fitted(audio, t, work / language) for t in teachers}
    held = [r for r in audio.to_pylist() if r["split"] == "held_out" and r["text"] and not r["reject_stage"]]
    truths = {"clips": concatenated([r for r in held if words_of(r["text"], language)], 60, 4)}
    if available(language):
        truths["pocketsphinx"] = forced(held)
    print("| truth | method | start: median | p90 | bias | end: median | p90 | bias | boundaries | rejected |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for truth, cases in truths.items():
        report(truth, "proportional split", cases, proportional(cases))
        for name, folder in models.items():
            method = "fitted, flat start" if name == "none" else f"fitted, taught by {name}"
            report(truth, method, cases, aligned(cases, folder))


if __name__ == "__main__":
    typer.run(main)
