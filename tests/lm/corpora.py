"""A small corpus with structure: every letter sounds a little different each time, as units do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.tokens.config import SequencesConfig, TokenizerConfig
from spiritlm_core.tokens.fit import save_bpe, train_bpe
from spiritlm_core.tokens.hf import vocabulary_for
from spiritlm_core.tokens.speech import merge_streams
from spiritlm_core.tokens.stage import SEQUENCES, word_by_word
from spiritlm_core.tokens.text import TextTokenizer

SIZES = SequencesConfig(hubert=60, pitch=8, style=4)
_NOUNS = ("extension", "password", "number", "message", "agent", "operator", "conference", "mailbox", "queue", "caller")
_VERBS = ("enter", "press", "dial", "hear", "leave", "record", "change", "confirm", "delete", "forward")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Units:
    hubert: np.ndarray
    pitch: np.ndarray
    style: np.ndarray


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)

    def one() -> str:
        noun, verb = rng.choice(_NOUNS), rng.choice(_VERBS)
        digits = " ".join(rng.choice(_DIGITS, int(rng.integers(1, 4))))
        return str(
            rng.choice([f"please {verb} your {noun} followed by {digits}", f"to {verb} the {noun} press {digits}"])
        )

    return [one() for _ in range(count)]


def tokenizer(lines: Sequence[str], out: Path, size: int = 320) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    save_bpe(train_bpe([f" {line}" for line in lines], TokenizerConfig(vocab_size=size)), out)
    return out


def speak(words: Sequence[str], rng: np.random.Generator, sizes: SequencesConfig) -> tuple[Units, list[float]]:
    """Units of the words at 25, 12.5 and 1 Hz, and the start of each word in seconds."""
    frames: list[int] = []
    starts = []
    for word in words:
        starts.append(len(frames) / 25)
        for letter in word.lower():
            for half in range(2):
                unit = (ord(letter) * 7 + half * 13) % (sizes.hubert // 3) * 3 + int(rng.choice(3, p=[0.6, 0.3, 0.1]))
                frames += [unit] * int(rng.integers(1, 4))
    phase = rng.random() * 6
    pitch = [
        int((np.sin(i / 9 + phase) + 1) / 2 * (sizes.pitch - 1) + rng.random()) for i in range(len(frames) // 2 + 1)
    ]
    style = [int(rng.integers(0, sizes.style))] * (len(frames) // 25 + 1)
    return Units(*(np.array(x) for x in (frames, np.minimum(pitch, sizes.pitch - 1), style))), starts


def sequences(lines: Sequence[str], folder: Path, sizes: SequencesConfig = SIZES, held_out: float = 0.1) -> pa.Table:
    text = TextTokenizer.load(folder)
    vocabulary = vocabulary_for(text, sizes)
    rows: list[Row] = []
    for number, line in enumerate(lines):
        rng = np.random.default_rng([7, number])
        words = line.split()
        units, starts = speak(words, rng, sizes)
        merged = merge_streams(units)
        timed = [
            {"word": word, "start": start, "interpolated": False} for word, start in zip(words, starts, strict=True)
        ]
        row = word_by_word(timed, merged.ids(vocabulary), merged.times, text, sizes)
        assert row is not None
        split = "held_out" if number % round(1 / held_out) == 0 else "train"
        name = {"utterance_id": f"u{number:05}", "recording_id": f"r{number:05}", "start": 0.0, "split": split}
        rows.append({**row, **name, "duration": len(units.hubert) / 25})
    return table_of(rows, SEQUENCES)
