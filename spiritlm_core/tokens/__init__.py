"""Tokens: vocabulary, text tokenizers, merged speech tokens, interleaving, packing and mixing.

`vocabulary` and `speech` say what the tokens are; `words` says how a transcript is said; `text`, `hf` and `fit`
deal with text tokenizers; `stage` puts tokens to words; `corpus`, `documents`,
`pack` and `mix` make training sequences of them.
"""
