"""A tiny corpus of tones: one pitch of tone, one unit and one word for each number word, and a tiny Llama."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spiritlm_core.align.stage import WORDS
from spiritlm_core.audio.codec import encode_flac
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.stage import EvaluateStage
from spiritlm_core.lake.schema import rejected, table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import ModelConfig
from spiritlm_core.speech.stage import UNITS
from spiritlm_core.tokens.config import SequencesConfig, SharesConfig, TokenizerStageConfig, TokensConfig
from spiritlm_core.tokens.fit import TokenizerFit
from spiritlm_core.tokens.hf import save_tokenizer, vocabulary_for
from spiritlm_core.tokens.stage import SEQUENCES
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import Vocabulary

WORD_LIST = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SECONDS = 0.4  # of one word
SIZES = {"hubert": 24, "pitch": 16, "style": 5}
HOSTILE = "<script>alert('x')</script> \"one\" & $two$ </details>"


@dataclass(frozen=True)
class Corpus:
    """Tables, text tokenizer folder and vocabulary that belong together."""

    tables: dict[str, TableView]
    tokenizer: Path
    vocabulary: Vocabulary


def _words(number: int, generator: np.random.Generator) -> list[str]:
    """Counting upwards from a random digit: the next word follows from the last."""
    start = int(generator.integers(len(WORD_LIST)))
    return [WORD_LIST[(start + i) % len(WORD_LIST)] for i in range(4 + number % 4)]


def _tone(words: list[str], generator: np.random.Generator) -> np.ndarray:
    times = np.arange(int(SECONDS * 16_000)) / 16_000
    tones = [np.sin(2 * np.pi * (200 + 80 * WORD_LIST.index(word)) * times) for word in words]
    wave = np.concatenate(tones) * 0.4
    return (wave + 0.01 * generator.standard_normal(len(wave))).astype(np.float32)


def _units(words: list[str]) -> dict[str, list[int]]:
    frames = round(SECONDS * 25)
    hubert = [2 * WORD_LIST.index(word) + (i >= frames // 2) for word in words for i in range(frames)]
    return {
        "hubert": hubert,
        "pitch": [u % SIZES["pitch"] for u in hubert[::2]],
        "style": [1] * (len(hubert) // 25 + 1),
    }


def _sequence(words: list[str], tokenizer: TextTokenizer, vocabulary: Vocabulary) -> dict[str, object]:
    text = tokenizer.encode_words(words)
    speech, offsets = [], [0]
    for word in words:
        first = 2 * WORD_LIST.index(word)
        speech += [
            vocabulary.unit_id("Pi", first % SIZES["pitch"]),
            vocabulary.unit_id("Hu", first),
            vocabulary.unit_id("Hu", first + 1),
        ]
        offsets.append(len(speech))
    return {
        "words": words,
        "text_ids": text.ids.tolist(),
        "text_offsets": text.offsets.tolist(),
        "speech_ids": speech,
        "speech_offsets": offsets,
        "can_switch": [True] * len(words),
        "speech_only": False,
        "label_ids": tokenizer.encode_words(words[:1]).ids.tolist(),
    }


def _rows(number: int, tokenizer: TextTokenizer, vocabulary: Vocabulary, text: str | None) -> dict[str, dict]:
    generator = np.random.default_rng(number)
    words = _words(number, generator)
    key = {"utterance_id": f"u{number:03d}"}
    split = "held_out" if number % 4 == 0 else "train"
    about = {"recording_id": f"r{number // 2:03d}", "start": (number % 2) * 9.0, "duration": SECONDS * len(words),
             "speaker": f"s{number % 3}", "language": "en", "split": split,
             "label": "low" if WORD_LIST.index(words[0]) < 5 else "high", "origin": "recorded",
             "text": text or " ".join(words)}  # fmt: skip
    copied = {name: value for name, value in about.items() if name in SEQUENCES.names}
    timed = [
        {"word": word, "start": i * SECONDS, "end": (i + 1) * SECONDS, "score": None if i == 1 else 0.9,
         "interpolated": i == 1}
        for i, word in enumerate(words)
    ]  # fmt: skip
    audio = {
        **key,
        **about,
        "end": about["start"] + about["duration"],
        "source_uri": "file:///x",
        "audio": encode_flac(_tone(words, generator)),
    }
    return {
        "audio": audio,
        "words": {**key, "words": timed, "text": about["text"], "text_origin": "given"},
        "units": {**key, **_units(words)},
        "sequences": {**key, **copied, **_sequence(words, tokenizer, vocabulary)},
    }


def _drop(rows: dict[str, list[dict]], number: int, stage: str, reason: str) -> None:
    """Reject one row in `stage`: its payload is null from there on, and the rejection travels on."""
    order = ("audio", "words", "units", "sequences")
    kept = {"utterance_id", "recording_id", "start", "split", "source_uri"}
    for name in order[order.index(stage) :]:
        row = rows[name][number]
        rows[name][number] = rejected({key: row[key] for key in kept & set(row)}, stage, reason)


SCHEMAS = {"audio": AUDIO, "words": WORDS, "units": UNITS, "sequences": SEQUENCES}
DROPS = (
    (5, "audio", "no sound"),
    (6, "words", "no <b>words</b>"),
    (7, "words", "no <b>words</b>"),
    (9, "units", "1 frame"),
)


def make_corpus(folder: Path, utterances: int = 48, text: str | None = None) -> Corpus:
    """A corpus of counting utterances, four of them rejected; `text` replaces every transcript shown."""
    lines = [" ".join(WORD_LIST[i:] + WORD_LIST[:i]) for i in range(len(WORD_LIST))] * 4
    fit_audio = table_of(
        [{"utterance_id": f"t{i}", "split": "train", "recording_id": "r", "source_uri": "x"} for i in range(40)], AUDIO
    )
    fit_words = table_of([{"utterance_id": f"t{i}", "text": line} for i, line in enumerate(lines)], WORDS)
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    fit = TokenizerFit(TokenizerStageConfig(vocab_size=320), {})
    fit.build({"audio": TableView.of(fit_audio), "words": TableView.of(fit_words)}, tokenizer, folder, lambda *_: None)
    loaded = TextTokenizer.load(tokenizer)
    vocabulary = vocabulary_for(loaded, SequencesConfig(**SIZES))
    numbered = [_rows(number, loaded, vocabulary, text) for number in range(utterances)]
    rows = {name: [row[name] for row in numbered] for name in SCHEMAS}
    for number, stage, reason in DROPS:
        _drop(rows, number, stage, reason)
    half = utterances // 2
    views = {n: TableView.of(table_of(r[:half], SCHEMAS[n]), table_of(r[half:], SCHEMAS[n])) for n, r in rows.items()}
    return Corpus(views, tokenizer, vocabulary)


def make_model(folder: Path, corpus: Corpus, context_length: int = 256, **shares: float) -> Path:
    """A random Llama as the model stage writes it, two training metrics included."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=-(-corpus.vocabulary.size // 64) * 64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context_length,
        bos_token_id=corpus.vocabulary.bos,
        eos_token_id=corpus.vocabulary.eos,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(corpus.tokenizer, corpus.vocabulary, folder)
    sizes = SequencesConfig(**SIZES)
    tokens = TokensConfig(sequences=sizes, context_length=context_length, shares=SharesConfig(**shares))
    settings = ModelConfig(tokens=tokens, lm={"tokens_per_step": context_length})
    record = {"config": settings.model_dump(mode="json"), "vocabulary": corpus.vocabulary.fingerprint()}
    (folder / "training.json").write_text(json.dumps(record))
    rows = [
        {"step": i, "loss": 6.0 - i / 10, "loss_text": 5.0, "loss_speech": None, "loss_interleaved": 6.0}
        for i in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "metrics.parquet")
    return folder


CONFIG = EvaluateConfig(shots=2, fewshot_utterances=4, max_new_tokens=24, bootstrap_samples=100, figures=2)
LINEAGE = {"recipe": "tiny <&> recipe", "shards": {"audio": 2}, "artifacts": {"model": "ab" * 32}}


def evaluate(corpus: Corpus, model: Path, out: Path, config: EvaluateConfig = CONFIG, **models: Path) -> dict:
    (out.parent / "lineage.json").write_text(json.dumps(LINEAGE))
    out.mkdir()
    stage = EvaluateStage(config, {"model": model, "lineage": out.parent / "lineage.json", **models})
    fractions: list[float] = []
    summary = stage.build(corpus.tables, out, out, lambda fraction, _: fractions.append(fraction))
    assert fractions == sorted(fractions)
    return summary
