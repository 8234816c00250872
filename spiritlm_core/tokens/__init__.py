"""Tokens: vocabulary, text tokenizers, merged speech tokens, interleaving, packing and mixing.

`vocabulary` and `speech` say what the tokens are; `text`, `plain`, `hf`, `fit` and `sentencepiece_bpe` deal with text
tokenizers; `layout` and `stage` put tokens to words; `corpus`, `interleave`, `documents`, `pack` and `mix` make
training sequences of them.
"""
