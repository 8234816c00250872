"""The stage `tokenizer`: a text tokenizer trained on the transcripts, or that of the model to start from."""

import hashlib
import heapq
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.lake.stage import ArtifactStage, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokenizerConfig, TokenizerStageConfig
from spiritlm_core.tokens.hf import TOKENIZER_FILES, copy_files, write_config, write_json
from spiritlm_core.tokens.text import SPOKEN, TextTokenizer, plain_tokenizer, tokenizer_config
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE
from spiritlm_core.tokens.words import spoken_text


class TokenizerFit(ArtifactStage):
    """Writes a Hugging Face folder that AutoTokenizer loads, without markers and speech tokens.

    Models: ``"base"``, if any, a Hugging Face folder or .gguf file whose tokenizer is taken.
    """

    config: TokenizerStageConfig
    name: ClassVar[str] = "tokenizer"
    about: ClassVar[str] = "text tokenizer"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio", ("utterance_id", "split")),
        TableInput("words", ("utterance_id", "text", "reject_stage")),
        TableInput("documents", ("document_id", "split", "text", "reject_stage"), optional=True),
    )
    pinned: ClassVar[bool] = True

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit on the train rows, or take the base tokenizer; see :class:`ArtifactStage`."""
        if "base" in self.models:
            progress(0.0, "taking the tokenizer of the base model")
            take(self.models["base"], out)
            lines = 0
        else:
            lines = self._train(tables, out, progress)
        if self.config.spoken is not None:
            write_json(out / "tokenizer_config.json", {**tokenizer_config(out), SPOKEN: self.config.spoken})
        tokenizer = TextTokenizer.load(out)
        progress(1.0, f"{tokenizer.size} text tokens")
        return {"text_tokens": tokenizer.size, "lines": lines, "bos": tokenizer.bos, "eos": tokenizer.eos}

    def _train(self, tables: Mapping[str, TableView], out: Path, progress: Progress) -> int:
        progress(0.0, "reading transcripts")
        lines = chosen_lines(tables, self.config)
        if not lines:
            raise SpiritLMError("the train split has no transcript to train a tokenizer on: give tokens.tokenizer.base")
        progress(0.3, f"training a BPE on {len(lines)} transcripts")
        save_bpe(train_bpe(lines, self.config), out)
        return len(lines)


def chosen_lines(tables: Mapping[str, TableView], config: TokenizerStageConfig) -> list[str]:
    """At most `max_lines` transcripts and lines of text of the train split, the same ones whatever the shards.

    One space stands in front of each word, and the words are in the form that the tokenizer is to know.
    """
    lines = chain(_train_texts(tables), _document_lines(tables["documents"]) if "documents" in tables else ())
    known = ((name, text if config.spoken is None else spoken_text(text, config.spoken)) for name, text in lines)
    spaced = ((name, "".join([f" {word}" for word in text.split()])) for name, text in known)
    ranked = ((_rank(config.seed, name), text) for name, text in spaced if text)
    return [text for _, text in heapq.nsmallest(config.max_lines, ranked)]


def _rank(seed: int, utterance: str) -> bytes:
    return hashlib.blake2b(json.dumps([seed, utterance]).encode(), digest_size=16).digest()


def _train_texts(tables: Mapping[str, TableView]) -> Iterator[tuple[str, str]]:
    """utterance_id and text of the train rows."""
    train: set[str] = set()
    for shard in tables["audio"].shards(("utterance_id", "split")):
        rows = zip(shard["utterance_id"].to_pylist(), shard["split"].to_pylist(), strict=True)
        train.update(utterance for utterance, split in rows if split == "train")
    for shard in tables["words"].good(("utterance_id", "text")):
        for row in shard.to_pylist():
            if row["text"] and row["utterance_id"] in train:
                yield row["utterance_id"], row["text"]


def _document_lines(documents: TableView) -> Iterator[tuple[str, str]]:
    """A name and the text of each line of the train documents."""
    for shard in documents.good(("document_id", "text"), "train"):
        for row in shard.to_pylist():
            for number, line in enumerate(row["text"].splitlines()):
                yield f"{row['document_id']}/{number}", line


def take(base: Path, out: Path) -> None:
    """Copy or convert the tokenizer of a model: a Hugging Face folder (fast or SentencePiece) or a .gguf file.

    Raises ModelReferenceError: there is no tokenizer that can be used.
    """
    if base.is_file():
        _take_gguf(base, out)
    elif (base / "tokenizer.json").is_file():
        copy_files(TOKENIZER_FILES, base, out)
        if (base / VOCABULARY_FILE).is_file():  # the recipe says which speech tokens follow the text tokens
            text = json.dumps(plain_tokenizer(base), ensure_ascii=False)
            (out / "tokenizer.json").write_text(text, encoding="utf-8")
    else:
        _convert(base, out)


def _convert(folder: Path, out: Path, **options: Any) -> None:
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    try:
        tokenizer = load(folder, local_files_only=True, trust_remote_code=False, **options)
        tokenizer.save_pretrained(out)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise ModelReferenceError(f"{folder}: no tokenizer that transformers can load: {error}") from error
    if not (out / "tokenizer.json").is_file():
        raise ModelReferenceError(f"{folder}: its tokenizer has no fast version (no tokenizer.json)")


def _take_gguf(path: Path, out: Path) -> None:
    """Convert with transformers, then set BOS and EOS as the file says: the conversion gets them wrong."""
    from gguf import GGUFReader

    _convert(path.parent, out, gguf_file=path.name)
    fields = GGUFReader(path).fields
    said = {
        name: _field(fields, f"tokenizer.ggml.{name}") for name in ("bos_token_id", "eos_token_id", "add_bos_token")
    }
    values = read_json(out / "tokenizer.json")
    names = {i: token for token, i in values["model"]["vocab"].items()}
    tokens = {name: names[said[f"{name}_id"]] for name in ("bos_token", "eos_token") if said[f"{name}_id"] is not None}
    write_config(out, {**tokenizer_config(out), **tokens})
    if not said["add_bos_token"]:
        text = json.dumps({**values, "post_processor": None}, ensure_ascii=False)
        (out / "tokenizer.json").write_text(text, encoding="utf-8")


def _field(fields: Mapping[str, Any], name: str) -> Any:
    return fields[name].contents() if name in fields else None


UNK, BOS, EOS = "<unk>", "<s>", "</s>"
_SPACE = "▁"
_MAX_BYTES = 1 << 20


def train_bpe(lines: Iterable[str], config: TokenizerConfig) -> bytes:
    """Train a BPE with byte fallback (arXiv 1808.06226) and return the SentencePiece model file.

    One thread and no sampling inside: the same lines, with a space in front of every word, give the same model.

    Raises SpiritLMError: the vocabulary is too small for the characters of the text, or there is no text.
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


def save_bpe(model: bytes, out: Path) -> None:
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
