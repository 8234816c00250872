"""Real tokenizers of every kind, small ones trained here and those that lie beside the repository."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.support.released import LLAMA, PARITY

UNK = "<unk>"


LINES = [
    " Please enter your 10 digit account number, followed by the pound key.",
    " It's the naïve café's résumé; don't you think so? (I don't.)",
    " Press 1 to mute, 2 to lock, or 8 to exit -- that's all, folks!",
    " The quick brown fox jumps over the lazy dog and the cat sat on the mat of the dog",
    ' He said: "hello world", and of the two of the best in the world that of the',
] * 4

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def transcripts() -> list[str]:
    """Transcripts of real speech where they are at hand, else a few sentences."""
    manifest = PARITY.parent / "data/manifest.jsonl"
    if not manifest.is_file():
        return [line.strip() for line in LINES]
    return [text for line in manifest.read_text().splitlines() if (text := json.loads(line)["text"])]


def byte_level(out: Path, kind: str, size: int = 700) -> Path:
    """A byte-level BPE; `kind` is "gpt2", "llama3", "qwen" (NFC) or "loose" (tokens reach over spaces)."""
    from tokenizers import normalizers

    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=kind == "gpt2", use_regex=kind == "gpt2")
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain]) if kind in ("llama3", "qwen") else plain
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return _save(tokenizer, out, eos="<|im_end|>")


def loose_sentencepiece(out: Path, size: int = 420) -> Path:
    """A SentencePiece BPE whose pieces reach over spaces, made fast the way transformers does it for Llama."""
    import sentencepiece
    from tokenizers import normalizers

    from spiritlm_core.tokens.fit import fast_tokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 5), model_writer=model, model_type="bpe", vocab_size=size, byte_fallback=True,
        split_by_whitespace=False, hard_vocab_limit=False, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    tokenizer = fast_tokenizer(model.getvalue())
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _save(tokenizer, out, eos="</s>")


def unigram(out: Path) -> Path:
    """A unigram model with a Metaspace prefix, NFKC and collapsing spaces, as of T5 or XLM-R."""
    from tokenizers import normalizers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=[UNK, "</s>"], unk_token=UNK, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return _save(tokenizer, out, eos="</s>")


def llama_2(out: Path) -> Path | None:
    """The tokenizer of Llama 2 as transformers converts it, or None where its file is not at hand."""
    from spiritlm_core.tokens.fit import take

    if not LLAMA.is_file():
        return None
    slow = out / "slow"
    slow.mkdir(parents=True)
    shutil.copyfile(LLAMA, slow / "tokenizer.model")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **names}))
    take(slow, out)
    return out


def _save(tokenizer: Tokenizer, out: Path, eos: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos})
    )
    return out
