"""All training documents of a table."""

from __future__ import annotations

from collections.abc import Iterator

from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokensConfig
from spiritlm_core.tokens.corpus import Corpus
from spiritlm_core.tokens.documents import Document, corpus_documents
from spiritlm_core.tokens.vocabulary import Vocabulary


def documents(
    view: TableView, vocabulary: Vocabulary, config: TokensConfig, *, stream: str, split: str, seed: int, epoch: int
) -> Iterator[Document]:
    """Those of one stream and split of a `sequences` table."""
    corpus = Corpus.of(view, split, vocabulary, config.context_length, pairs=config.pairs)
    return corpus_documents(corpus, vocabulary, config, stream=stream, seed=seed, epoch=epoch)
