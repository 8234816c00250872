"""Training a SentencePiece BPE, and writing it as a Hugging Face tokenizer with the same ids."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.tokens.config import TokenizerConfig
from spiritlm_core.tokens.hf import write_config

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
_SPACE = "▁"
_MAX_BYTES = 1 << 20


def train(lines: Iterable[str], config: TokenizerConfig) -> bytes:
    """Train a BPE with byte fallback (arXiv 1808.06226) and return the SentencePiece model file.

    One thread and no sampling inside: the same lines, with a space in front of every word, give the same model.

    Raises:
        SpiritLMError: the vocabulary is too small for the characters of the text, or there is no text.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,  # a small text gives fewer pieces instead of an error
            character_coverage=config.character_coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            max_sentence_length=_MAX_BYTES,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise SpiritLMError(
            f"SentencePiece cannot train {config.vocab_size} pieces on these transcripts "
            f"(change tokens.tokenizer.vocab_size or character_coverage): {error}"
        ) from error
    return model.getvalue()


def save(model: bytes, out: Path) -> None:
    """Write a SentencePiece BPE as a Hugging Face folder: ``tokenizer.json``, its config, and ``tokenizer.model``."""
    fast_tokenizer(model).save(str(out / "tokenizer.json"))
    (out / "tokenizer.model").write_bytes(model)
    write_config(out, {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK})


def fast_tokenizer(model: bytes) -> Any:
    """The same BPE as a ``tokenizers.Tokenizer``, giving the same ids."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    bpe = models.BPE(vocab, _merges(vocab, pieces), unk_token=UNK, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    # no piece has a space but at its start, so words can be encoded one by one
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_SPACE, "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (UNK, BOS, EOS)])
    return tokenizer


def _merges(vocab: dict[str, int], pieces: Any) -> list[tuple[str, str]]:
    """Every way to put a piece together from two, the best pieces first: SentencePiece scores the result only."""
    normal = [piece for piece, i in vocab.items() if not (pieces.is_control(i) or pieces.is_byte(i) or i == 0)]
    known = set(normal)
    found = [
        (-pieces.get_score(vocab[piece]), cut, piece)
        for piece in normal
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    return [(piece[:cut], piece[cut:]) for _, cut, piece in sorted(found, key=lambda item: item[:2])]
