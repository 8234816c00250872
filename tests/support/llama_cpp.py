"""llama.cpp, as the package cyllama brings it: ids of a text, and greedy continuations of ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class LlamaCpp:
    """One ``.gguf`` file, loaded for prompts of up to `context` tokens with their answers."""

    def __init__(self, file: Path, threads: int = 1, context: int = 512) -> None:
        from cyllama.llama import llama_cpp

        llama_cpp.disable_logging()
        self._library, self._threads, self._context = llama_cpp, threads, context
        settings = llama_cpp.LlamaModelParams()
        settings.n_gpu_layers = 0
        self.model = llama_cpp.LlamaModel(str(file), settings)

    def ids(self, text: str) -> list[int]:
        """Ids of a text, in which speech tokens may stand; with BOS where the file says so."""
        return list(self.model.get_vocab().tokenize(text, True, False))

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """`count` ids, each the likeliest; keys and values of attention are float32."""
        settings = self._library.LlamaContextParams()
        settings.n_ctx = settings.n_batch = self._context
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.type_k = settings.type_v = 0  # GGML_TYPE_F32
        settings.flash_attn_type = 0  # disabled: it works in float16
        context = self._library.LlamaContext(self.model, settings)
        sampler = self._library.LlamaSampler(self._library.LlamaSamplerChainParams())
        sampler.add_greedy()
        new: list[int] = []
        step, position = list(prompt), 0
        for _ in range(count):
            context.decode(self._library.llama_batch_get_one(step, position))
            position += len(step)
            step = [sampler.sample(context, -1)]
            new += step
        context.close()
        return new
