"""The model under evaluation, with everything that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokensConfig

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM
    from spiritlm_core.tokens.corpus import Corpus
    from spiritlm_core.tokens.documents import Document
    from spiritlm_core.tokens.vocabulary import Vocabulary

_SEED = 1_000_003  # spans of the scored documents are drawn with a seed that no training run is likely to use


@dataclass(frozen=True)
class Evaluated:
    """A trained model as the evaluation uses it.

    Attributes:
        spirit: The model.
        tokens: How its training sequences were laid out; held-out ones are laid out alike, but examples are whole
            utterances, and one alone.
        context_length: Longest sequence in tokens.
    """

    spirit: SpiritLM
    tokens: TokensConfig
    context_length: int

    @classmethod
    def load(cls, folder: Path, context_length: int | None = None) -> Evaluated:
        """Load a folder written by the model stage, onto the GPU if there is one.

        Raises:
            SpiritLMError: ``training.json`` or ``vocabulary.json`` is missing or broken, or belongs to another model.
        """
        from spiritlm_core.lm.generate.spirit import SpiritLM
        from spiritlm_core.tokens.hf import load_vocabulary

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
        from spiritlm_core.tokens.corpus import shown_streams

        return shown_streams(self.tokens.shares)

    @property
    def unit_sizes(self) -> dict[str, int]:
        """Classes of each unit stream; 0 for a stream that the model does not have."""
        return {"hubert": self.vocabulary.hubert, "pitch": self.vocabulary.pitch, "style": self.vocabulary.style}

    def corpus(self, sequences: TableView, split: str) -> Corpus:
        """The words of one split as they were recorded, read once for all streams."""
        from spiritlm_core.tokens.corpus import Corpus

        return Corpus.of(sequences, split, self.vocabulary, self.tokens.context_length, copies=False)

    def documents(self, corpus: Corpus, stream: str, seed: int) -> Iterator[Document]:
        """The documents of one stream, laid out as for training."""
        from spiritlm_core.tokens.documents import corpus_documents

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
