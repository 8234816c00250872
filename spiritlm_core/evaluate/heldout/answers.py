"""The model under evaluation, with everything that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.generate.prompts import Modality, marker
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from spiritlm_core.tokens.corpus import Corpus
    from spiritlm_core.tokens.documents import Document

_SEED = 1_000_003  # spans of the scored documents are drawn with a seed that no training run is likely to use


@dataclass(frozen=True)
class Evaluated:
    """A trained model as the evaluation uses it.

    Attributes:
        model: A causal LM of transformers, in evaluation mode.
        tokenizer: Its tokenizer.
        vocabulary: Tells text from speech ids.
        tokens: How its training sequences were laid out; held-out ones are laid out alike.
        context_length: Longest sequence in tokens.
    """

    model: Any
    tokenizer: Any
    vocabulary: Vocabulary
    tokens: TokensConfig
    context_length: int

    @classmethod
    def load(cls, folder: Path, context_length: int | None = None) -> Evaluated:
        """Load a folder written by the model stage, onto the GPU if there is one.

        Raises:
            SpiritLMError: ``training.json`` or ``vocabulary.json`` is missing or broken, or belongs to another model.
        """
        import torch
        from transformers import AutoTokenizer

        from spiritlm_core.lm.model.network import load_pretrained

        vocabulary = load_vocabulary(folder)
        training = _read_json(folder / "training.json")
        if training.get("vocabulary", vocabulary.fingerprint()) != vocabulary.fingerprint():
            raise SpiritLMError(f"{folder}: vocabulary.json is not the vocabulary that training.json names")
        tokens = TokensConfig.model_validate(training["config"]["tokens"])
        model: Any = load_pretrained(folder)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        loader: Any = AutoTokenizer
        tokenizer = loader.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        limit = min(context_length or tokens.context_length, model.config.max_position_embeddings)
        return cls(model, tokenizer, vocabulary, tokens, limit)

    @property
    def unit_sizes(self) -> dict[str, int]:
        """Classes of each unit stream; 0 for a stream that the model does not have."""
        return {"hubert": self.vocabulary.hubert, "pitch": self.vocabulary.pitch, "style": self.vocabulary.style}

    def corpus(self, sequences: TableView, split: str) -> Corpus:
        """The words of one split, read once for all streams."""
        from spiritlm_core.tokens.corpus import Corpus

        return Corpus.of(sequences, split, self.vocabulary, self.tokens.context_length)

    def documents(self, corpus: Corpus, stream: str, seed: int) -> Iterator[Document]:
        """The documents of one stream, laid out as for training."""
        from spiritlm_core.tokens.documents import corpus_documents

        return corpus_documents(corpus, self.vocabulary, self.tokens, stream=stream, seed=seed + _SEED, epoch=0)

    def answer(self, prompts: Sequence[Sequence[int]], modality: Modality, most: int) -> list[list[int]]:
        """Greedy continuations; one in "text" or "speech" ends where the model turns to the other."""
        from spiritlm_core.lm.generate.decode import generate

        other = {"text": "speech", "speech": "text"}
        stop = [marker(other[modality], self.vocabulary)] if modality in other else []  # type: ignore[arg-type]
        return generate(self.model, self.vocabulary, prompts, modality=modality, max_new_tokens=most, stop_ids=stop)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of text ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SpiritLMError(f"{path}: not the file of a model of this pipeline: {error}") from error
