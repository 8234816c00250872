"""Tokens: vocabulary, text tokenizers, merged speech tokens, interleaving, packing and mixing.

`vocabulary` and `speech` say what the tokens are; `words` says how a transcript is said; `text`, `hf`, `fit` and
`sentencepiece_bpe` deal with text tokenizers; `stage` puts tokens to words; `corpus`, `interleave`, `documents`,
`pack` and `mix` make training sequences of them.
"""
