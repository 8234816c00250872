"""The model under evaluation, and transcribed utterances as tokens, picked out of the tables."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.clips import rank
from spiritlm_core.files import read_json
from spiritlm_core.lake.schema import SYNTHETIC
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.distances import normalise
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.corpus import Corpus, shown_streams
from spiritlm_core.tokens.documents import Document, corpus_documents
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.vocabulary import Vocabulary

_COLUMNS = ("utterance_id", "text", "text_ids", "speech_ids", "speech_only", "duration", "language", "origin")


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Utterance:
    """One transcribed utterance as tokens."""

    key: str  # its utterance_id
    text: str  # transcript
    text_ids: np.ndarray  # int64[N] tokens of the transcript, no marker
    speech_ids: np.ndarray  # int64[M] tokens of the speech, no marker
    duration: float  # seconds
    language: str | None = None  # of what is said, or None where nobody says it
    synthetic: bool = False  # said by a machine

    @cached_property
    def words(self) -> str:
        """The transcript, normalised."""
        return normalise(self.text)

    @property
    def tokens(self) -> int:
        """Length in tokens with both markers."""
        return len(self.text_ids) + len(self.speech_ids) + 2


def utterances(sequences: TableView, split: str) -> Iterator[Utterance]:
    """The utterances of one split that have both text and speech."""
    for shard in sequences.good(_COLUMNS, split):
        for row in shard.to_pylist():
            if row["text_ids"] and not row["speech_only"]:
                yield _utterance(row)


def _utterance(row: Mapping[str, Any]) -> Utterance:
    text, speech = (np.array(row[name] or [], dtype=np.int64) for name in ("text_ids", "speech_ids"))
    about = row["duration"] or 0.0, row["language"], row["origin"] == SYNTHETIC
    return Utterance(row["utterance_id"], row["text"] or "", text, speech, *about)


def pick(
    sequences: TableView, split: str, count: int, seed: int, keep: Callable[[Utterance], bool] = lambda _: True
) -> list[Utterance]:
    """At most `count` utterances that `keep` likes, drawn by :func:`rank` and in its order."""
    liked = (utterance for utterance in utterances(sequences, split) if keep(utterance))
    return heapq.nsmallest(count, liked, key=lambda utterance: rank(seed, utterance.key))


def train_words(sequences: TableView) -> frozenset[str]:
    """The words of all train transcripts, normalised."""
    words: set[str] = set()
    for shard in sequences.good(("text",), "train"):
        for text in pc.unique(shard["text"].drop_null()).to_pylist():
            words.update(normalise(text).split())
    return frozenset(words)


def labels_of(audio: TableView, split: str) -> dict[str, str]:
    """utterance_id → label of the good rows of one split that have a label."""
    labels: dict[str, str] = {}
    for shard in audio.good(("utterance_id", "label"), split):
        rows = shard.filter(pc.is_valid(shard["label"]))
        labels.update(zip(rows["utterance_id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    return labels


def count(sequences: TableView, split: str) -> int:
    """Number of :func:`utterances` of a split, without reading their tokens."""
    speech_only = (shard["speech_only"].fill_null(False) for shard in sequences.good(("speech_only",), split))
    return sum(len(column) - (pc.sum(column).as_py() or 0) for column in speech_only)


_SEED = 1_000_003  # spans of the scored documents are drawn with a seed that no training run is likely to use


@dataclass(frozen=True)
class Evaluated:
    """A trained model as the evaluation uses it."""

    spirit: SpiritLM
    # how its training sequences were laid out; held-out ones are laid out alike, but examples are whole utterances, and
    # one alone
    tokens: TokensConfig
    context_length: int  # longest sequence in tokens

    @classmethod
    def load(cls, folder: Path, context_length: int | None = None) -> Evaluated:
        """Load a folder written by the model stage, onto the GPU if there is one.

        Raises:
            SpiritLMError: ``training.json`` or ``vocabulary.json`` is missing or broken, or belongs to another model.
        """
        vocabulary = load_vocabulary(folder)
        training = read_json(folder / "training.json")
        if training.get("vocabulary", vocabulary.fingerprint()) != vocabulary.fingerprint():
            raise SpiritLMError(f"{folder}: vocabulary.json is not the vocabulary that training.json names")
        tokens = TokensConfig.model_validate(training["config"]["tokens"])
        tokens = tokens.model_copy(update={"pairs": tokens.pairs.model_copy(update={"crops": 0.0, "shots": 0})})
        spirit = SpiritLM.from_pretrained(folder)
        return cls(spirit, tokens, min(context_length or tokens.context_length, spirit.context))

    @property
    def vocabulary(self) -> Vocabulary:
        """Tells text from speech ids."""
        return self.spirit.vocabulary

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that are scored."""
        return shown_streams(self.tokens.shares)

    @property
    def unit_sizes(self) -> dict[str, int]:
        """Classes of each unit stream; 0 for a stream that the model does not have."""
        return {"hubert": self.vocabulary.hubert, "pitch": self.vocabulary.pitch, "style": self.vocabulary.style}

    def corpus(self, sequences: TableView, split: str) -> Corpus:
        """The words of one split as they were recorded, read once for all streams."""
        return Corpus.of(sequences, split, self.vocabulary, self.tokens.context_length, copies=False)

    def documents(self, corpus: Corpus, stream: str, seed: int) -> Iterator[Document]:
        """The documents of one stream, laid out as for training."""
        return corpus_documents(corpus, self.vocabulary, self.tokens, stream=stream, seed=seed + _SEED, epoch=0)

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of text ids, without white space at its ends."""
        return self.spirit.layout.text(list(map(int, ids))).strip()

    def speech(self, ids: Sequence[int] | np.ndarray) -> str:
        """Speech tokens of speech ids."""
        return self.spirit.layout.tokens(list(map(int, ids)))

    def render(self, ids: Sequence[int] | np.ndarray) -> str:
        """Token ids in the notation of the paper: text as it is, ``[Text]``, ``[Speech]`` and ``[Hu78]`` as named."""
        vocabulary = self.vocabulary
        parts: list[str] = []
        for is_text, run in groupby(map(int, ids), key=lambda token: token < vocabulary.text_size):
            tokens = list(run)
            parts += [self.spirit.layout.text(tokens)] if is_text else [_name(token, vocabulary) for token in tokens]
        return "".join(parts)


def _name(token: int, vocabulary: Vocabulary) -> str:
    index = token - vocabulary.text_size
    name = vocabulary.tokens[index] if index < len(vocabulary.tokens) else f"<{token}>"
    return f" {name} " if token in (vocabulary.text_marker, vocabulary.speech_marker) else name
