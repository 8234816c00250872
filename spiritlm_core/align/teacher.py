"""What the fitted aligner learns: utterances of the corpus, label sequences, sound times from pocketsphinx (English).

pocketsphinx carries a GMM acoustic model of US English and a pronouncing dictionary, so nothing is
downloaded. An utterance with a word outside the dictionary gets no times; CTC teaches it instead.
"""

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple, cast

import numpy as np

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.lake.schema import Row
from spiritlm_core.lake.stage import Progress, silent
from spiritlm_core.lake.view import TableView
from spiritlm_core.language import main_code
from spiritlm_core.tokens.words import words_of

_SMALL = ("utterance_id", "language", "duration", "text")
_FASTEST = 30.0  # characters a second; what is faster than that is not a transcript of the audio


@dataclass(frozen=True)
class Utterance:
    """A piece of speech and what is said in it: lower-case words, none if nobody knows them; float32[T], 16 kHz."""

    key: str
    words: tuple[str, ...]
    waveform: np.ndarray


def row_language(row: Row) -> str:
    """The language of a row of the audio table."""
    return main_code(cast("str | None", row["language"]))


def main_language(audio: TableView) -> str:
    """The language of most of the train split, by duration; the first by name if several have as much."""
    seconds: Counter[str] = Counter()
    for row in _train_rows(audio):
        seconds[row_language(row)] += round(1000 * float(row["duration"] or 0.0))  # type: ignore[arg-type]
    return min(seconds, key=lambda language: (-seconds[language], language), default="en")


def choose(audio: TableView, language: str, *, minutes: float, longest: float, transcribed: bool) -> dict[str, float]:
    """The durations of up to `minutes` of train utterances, by key: a sample that depends on the rows alone.

    Rows longer than `longest` seconds are left out. `transcribed` rows have a transcript with words, the others none.
    """
    fitting = {
        str(row["utterance_id"]): float(row["duration"])  # type: ignore[arg-type]
        for row in _train_rows(audio)
        if row_language(row) == language and 0 < (row["duration"] or 0.0) <= longest  # type: ignore[operator]
        if (_plausible(row, language) if transcribed else row["text"] is None)
    }
    chosen, left = {}, minutes * 60
    for key in sorted(fitting, key=lambda key: hashlib.sha256(key.encode()).digest()):
        if fitting[key] <= left:
            chosen[key] = fitting[key]
            left -= fitting[key]
    return chosen


def load(audio: TableView, keys: Iterable[str], language: str) -> list[Utterance]:
    """The utterances called `keys`, sorted by key, with their audio."""
    wanted, clips = set(keys), []
    for shard in audio.shards(("utterance_id", "text", "audio")):
        mask = np.array([key in wanted for key in shard["utterance_id"].to_pylist()], dtype=bool)
        clips += [
            Utterance(row["utterance_id"], spoken(row["text"], language), decode_flac(row["audio"]))
            for row in shard.filter(mask).to_pylist()
        ]
    return sorted(clips, key=lambda utterance: utterance.key)


def spoken(text: str | None, language: str) -> tuple[str, ...]:
    """The spoken words of a transcript."""
    return tuple(part for word in words_of(text or "", language) for part in word.spoken)


def seconds_of(utterances: Sequence[Utterance]) -> float:
    """Their total duration."""
    return sum(len(utterance.waveform) for utterance in utterances) / 16_000


def _train_rows(audio: TableView) -> Iterator[Row]:
    for shard in audio.good(_SMALL, "train"):
        yield from shard.to_pylist()


def _plausible(row: Row, language: str) -> bool:
    if row["text"] is None:
        return False
    letters = sum(map(len, spoken(str(row["text"]), language)))
    return 0 < letters <= _FASTEST * float(row["duration"])  # type: ignore[arg-type]


STEP = 0.01  # seconds per frame of pocketsphinx


class Taught(NamedTuple):
    """A word as the teacher heard it, in seconds of the utterance; `onsets` of its sounds, the first at `start`."""

    start: float
    end: float
    onsets: Sequence[float]


Pair = tuple[np.ndarray, Sequence[str]]


def available(language: str | None) -> bool:
    """Whether the teacher speaks `language` and is installed."""
    return main_code(language, "") == "en" and importlib.util.find_spec("pocketsphinx") is not None


class Pocketsphinx:
    """Forced alignment of one utterance at a time."""

    def __init__(self, **options: Any) -> None:
        """`options` are the decoder's own."""
        from pocketsphinx import Decoder

        # The best-path pass shortens sounds below the three frames that state alignment needs.
        self._decoder = Decoder(samprate=16_000, lm=None, loglevel="FATAL", bestpath=False, **options)

    def knows(self, words: Sequence[str]) -> bool:
        """Whether all of `words` (lower case) are in the dictionary."""
        return all(self._decoder.lookup_word(word) is not None for word in words)

    def align(self, waveform: np.ndarray, words: Sequence[str]) -> list[Taught] | None:
        """Times of `words` (lower case) in a float waveform; None if a word is unknown or nothing fits."""
        if not words or not self.knows(words):
            return None
        return _matching(self.sounds((np.clip(waveform, -1.0, 1.0) * 32767).astype("<i2"), words), words)

    def sounds(self, samples: np.ndarray, words: Sequence[str]) -> Any:
        """Words, and sounds within them, of int16[T]: two passes, first words alone; None if nothing fits."""
        data = samples.tobytes()
        try:
            self._decoder.set_align_text(" ".join(words))
            self._run(data)
            if self._decoder.hyp() is None:
                return None
            self._decoder.set_alignment()
            self._run(data)
        except RuntimeError:  # its only way to say that the text does not fit
            return None
        return self._decoder.get_alignment()

    def _run(self, samples: bytes) -> None:
        self._decoder.start_utt()
        try:
            self._decoder.process_raw(samples, no_search=False, full_utt=True)
        finally:
            self._decoder.end_utt()


def _matching(alignment: Any, words: Sequence[str]) -> list[Taught] | None:
    heard, names = [], []
    for entry in alignment or ():
        if entry.name.startswith(("<", "[", "+")):  # silence and noises
            continue
        names.append(entry.name.partition("(")[0])
        onsets = tuple(sound.start * STEP for sound in entry)
        heard.append(Taught(entry.start * STEP, (entry.start + entry.duration) * STEP, onsets))
    return heard if names == list(words) else None


def _align_all(part: Sequence[Pair]) -> list[list[Taught] | None]:
    teacher = Pocketsphinx()
    return [teacher.align(waveform, words) for waveform, words in part]


def teach(utterances: Sequence[Pair], workers: int, report: Progress = silent) -> list[list[Taught] | None]:
    """Align many utterances (16 kHz) in processes: pocketsphinx holds the interpreter lock. Reports how far."""
    chunks = [utterances[start : start + 32] for start in range(0, len(utterances), 32)]
    taught: list[list[Taught] | None] = []
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn")) as pool:
        for index, part in enumerate(pool.map(_align_all, chunks)):
            taught += part
            report((index + 1) / len(chunks), f"pocketsphinx aligns {len(utterances)} utterances")
    return taught


BLANK, BOUNDARY = "<pad>", "|"  # the names that whisperx.align looks for
FRAME_RATE = 50  # frames of the aligner per second


def characters_of(utterances: Iterable[Sequence[str]], least: int) -> tuple[str, ...]:
    """The labels for a corpus: blank, word boundary, then every character seen `least` times, sorted."""
    counts = Counter(character for words in utterances for word in words for character in word)
    common = sorted(character for character, count in counts.items() if count >= least)
    return (BLANK, BOUNDARY, *(character for character in common if character != BOUNDARY))


def labels_of(words: Sequence[str], dictionary: dict[str, int]) -> np.ndarray:
    """Label sequence int64 of an utterance: its characters, a boundary after every word."""
    text = "".join(word + BOUNDARY for word in words)
    return np.array([dictionary[character] for character in text if character in dictionary], np.int64)


def spikes_of(words: Sequence[str], times: Sequence[Taught], frames: int, dictionary: dict[str, int]) -> np.ndarray:
    """A label per frame, int64 (frames,): a spike where a character's sound starts, blank elsewhere.

    Letters are spread over the sounds of their word by rank; the first is exactly at the word's start,
    which is the time that counts. The boundary follows at the word's end, or as late as the next word allows.
    """
    spikes = np.zeros(frames, np.int64)
    for index, (word, time) in enumerate(zip(words, times, strict=True)):
        letters = [dictionary[letter] for letter in word if letter in dictionary]
        following = times[index + 1].start if index + 1 < len(times) else frames / FRAME_RATE
        last = min(round(following * FRAME_RATE), frames) - 1
        places = _places(_onsets(time, len(letters)), round(time.end * FRAME_RATE), last)
        for label, place in zip([*letters, dictionary[BOUNDARY]], places, strict=True):
            if 0 <= place < frames:
                spikes[place] = label
    return spikes


def _onsets(time: Taught, letters: int) -> list[float]:
    """Onset of each of `letters` letters, interpolated along the onsets of the sounds."""
    edges = [*time.onsets, time.end]
    ranks = np.arange(letters) * len(time.onsets) / max(letters, 1)
    return [float(x) for x in np.interp(ranks, np.arange(len(edges)), edges)]


def _places(onsets: list[float], end: int, last: int) -> list[int]:
    """Strictly rising frames for the letters and the boundary, none after `last` if that can be had."""
    places: list[int] = []
    for wanted in [*(round(onset * FRAME_RATE) for onset in onsets), end]:
        places.append(max(wanted, places[-1] + 1) if places else wanted)
    for index in range(len(places) - 1, 0, -1):
        places[index] = min(places[index], last - (len(places) - 1 - index))
    return places
