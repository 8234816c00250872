"""Perplexity of models on plain text: what a warm start, or training on speech, does to a text model.

    python benchmarks/perplexity.py --texts FILE MODEL…

MODEL is a folder or a reference (`hf://…`, `pypi://…gguf`). Each line of FILE is scored on its own, with the softmax
over all rows of the model, speech tokens included, and over its text tokens alone.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

from spiritlm_core.lm.model.network import load_pretrained
from spiritlm_core.references.reference import resolve
from spiritlm_core.tokens.fit import take
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE


@torch.inference_mode()
def nats(model: Any, lines: list[list[int]], rows: int) -> float:
    """Mean negative log-likelihood of a token, over the first `rows` tokens of the vocabulary."""
    total, count = 0.0, 0
    for ids in lines:
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1, :rows].float()
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum"))
        count += len(ids) - 1
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--texts", type=Path, required=True)
    given = parser.parse_args()
    lines = [line for line in given.texts.read_text(encoding="utf-8").splitlines() if len(line.split()) > 1]
    for name in given.models:
        path = resolve(name).path if "://" in name else Path(name)
        with tempfile.TemporaryDirectory() as folder:
            take(path, Path(folder))
            text = TextTokenizer.load(Path(folder))
        start = [] if text.bos is None else [text.bos]
        ids = [start + text.encode_words(line).ids.tolist() for line in lines]
        model = load_pretrained(path).eval()
        rows = model.get_output_embeddings().weight.shape[0]
        speaks = path.is_dir() and (path / VOCABULARY_FILE).is_file()
        words = load_vocabulary(path).text_size if speaks else rows
        every, words_only = (math.exp(nats(model, ids, size)) for size in (rows, words))
        print(f"{name}: {every:.4f}, over text tokens {words_only:.4f} ({sum(map(len, ids))} tokens, {len(ids)} lines)")


if __name__ == "__main__":
    main()
