"""Tokens a second of llama.cpp and of this project's own decoding on the CPU, and how many answers are the same.

    python benchmarks/llama_cpp.py MODEL [--tokens 64] [--threads 2] [--prompts 20]

Each prompt is a few words and the marker of speech, or speech units and the marker of text, one at a time; answers are
greedy, and llama.cpp, which would go on behind EOS, makes as many tokens as ours. It is that of the package cyllama.
"""

import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import typer

from spiritlm_core.export.gguf import Quantization, export_gguf
from spiritlm_core.lm.generate.spirit import SpiritLM
from tests.support.llama_cpp import LlamaCpp

TEXT = "please press the number one to leave a message thank you hear my voice"


def prompts_for(spirit: SpiritLM, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    told = [" ".join(["", *rng.choice(TEXT.split(), 6)]) + "[Speech]" for _ in range(count // 2)]
    units = rng.integers(spirit.vocabulary.hubert, size=(count - count // 2, 30))
    return [*told, *("[Speech]" + "".join(f"[Hu{unit}]" for unit in row) + "[Text]" for row in units)]


def main(model: Path, tokens: int = 64, threads: int = 2, prompts: int = 20) -> None:
    """Answer so many prompts with so many tokens at most."""
    torch.set_num_threads(threads)
    spirit = SpiritLM.from_pretrained(model, "cpu")
    texts = prompts_for(spirit, prompts)
    asked = [spirit.layout.encode(text) for text in texts]
    began = time.perf_counter()
    given = [spirit.generate(prompt=text, max_new_tokens=tokens) for text in texts]
    answers = [list(answer.ids) for answer in given]
    seconds = time.perf_counter() - began
    size = sum(parameter.numel() for parameter in spirit.model.parameters())
    print(f"{'ours':8} float32     {4 * size / 1e6:8.1f} MB {sum(map(len, answers)) / seconds:8.0f} tokens/s")
    for kind in get_args(Quantization):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.gguf"
            megabytes = export_gguf(model, file, kind) / 1e6
            runtime = LlamaCpp(file, threads)
            began = time.perf_counter()
            found = [runtime.greedy(ids, len(answer)) for ids, answer in zip(asked, answers, strict=True)]
            rate = sum(map(len, found)) / (time.perf_counter() - began)
        same = sum(mine == its for mine, its in zip(answers, found, strict=True))
        print(f"llama.cpp {kind:10} {megabytes:8.1f} MB {rate:8.0f} tokens/s, {same} of {len(asked)} answers the same")


if __name__ == "__main__":
    typer.run(main)
