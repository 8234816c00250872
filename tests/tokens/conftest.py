from __future__ import annotations

from pathlib import Path

import pytest

from tests.tokens import tokenizers_for_tests as make


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokenizer folders by kind; "llama2" is there only where its file is."""
    root = tmp_path_factory.mktemp("tokenizers")
    found = {kind: make.byte_level(root / kind, kind) for kind in ("gpt2", "llama3", "qwen", "loose")}
    found["loose_sentencepiece"] = make.loose_sentencepiece(root / "loose_sentencepiece")
    found["unigram"] = make.unigram(root / "unigram")
    if llama := make.llama_2(root / "llama2"):
        found["llama2"] = llama
    return found
