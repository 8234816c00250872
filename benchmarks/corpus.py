"""Interleaving and packing speed on one core, against building strings and calling the tokenizer.

    python benchmarks/corpus.py [--hours 20] [--transcripts FILE]

Texts are random words (or the lines of a file), times and units are random, at the rates of real speech: 2.7 words,
25 HuBERT units (about 16 after collapsing), 12.5 pitch units (about 8) and one style unit a second.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import typer
from machine import peak_memory

from spiritlm_core.align.stage import WORDS
from spiritlm_core.config import FrozenConfig
from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.stage import UNITS
from spiritlm_core.tokens.config import SequencesStageConfig, TokenizerConfig, TokensConfig
from spiritlm_core.tokens.corpus import Corpus
from spiritlm_core.tokens.documents import Planner, corpus_documents
from spiritlm_core.tokens.fit import save_bpe, train_bpe
from spiritlm_core.tokens.hf import save_tokenizer, vocabulary_for
from spiritlm_core.tokens.mix import Mixture
from spiritlm_core.tokens.pack import fit, packed
from spiritlm_core.tokens.stage import SEQUENCES, SequencesStage
from spiritlm_core.tokens.text_stage import DOCUMENTS, TextStage
from spiritlm_core.tokens.vocabulary import Vocabulary

Made = TypeVar("Made")
WORDS_PER_SECOND = 2.7
DOCUMENTS_INPUT = pa.schema([DOCUMENTS.field(name) for name in TextStage.inputs[0].columns or ()])


def random_texts(count: int, words: int, rng: np.random.Generator) -> list[str]:
    """Words of 1 to 9 letters, common ones more often."""
    letters = np.array(list("etaoinshrdlu"))
    lexicon = ["".join(rng.choice(letters, size)) for size in rng.integers(1, 10, 5000)]
    chosen = np.minimum(rng.zipf(1.3, (count, words)) - 1, len(lexicon) - 1)
    return [" ".join([lexicon[i] for i in row]) for row in chosen.tolist()]


def sticky(rng: np.random.Generator, count: int, size: int, change: float) -> np.ndarray:
    """Units that change with some probability."""
    starts = np.flatnonzero(rng.random(count) < change)
    return rng.integers(0, size, len(starts) + 1)[np.searchsorted(starts, np.arange(count), "right")]


def inputs(texts: list[str], segments: int, rng: np.random.Generator) -> list[pa.Table]:
    """Audio (without the audio), words and units tables."""
    rows: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for i, text in enumerate(texts):
        words = text.split()
        seconds = len(words) / WORDS_PER_SECOND
        starts = np.sort(rng.random(len(words))) * seconds
        key: Row = {"utterance_id": f"u{i:07}"}
        where: Row = {"recording_id": f"r{i // segments:06}", "start": 15.0 * (i % segments), "split": "train"}
        timed = [{"word": w, "start": s, "interpolated": False} for w, s in zip(words, starts.tolist(), strict=True)]
        rows[0].append({**key, **where, "duration": seconds})
        rows[1].append({**key, "words": timed, "text": text})
        units = {
            "hubert": sticky(rng, int(25 * seconds), 500, 0.65),
            "pitch": sticky(rng, int(12.5 * seconds), 64, 0.65),
            "style": sticky(rng, int(seconds), 100, 1.0),
        }
        rows[2].append({**key, **units})
    audio = pa.schema([SEQUENCES.field(name) for name in SequencesStage.inputs[0].columns or ()])
    return [table_of(part, schema) for part, schema in zip(rows, (audio, WORDS, UNITS), strict=True)]


def cpu(work: Callable[[], Made]) -> tuple[Made, float]:
    """What `work` returns, and the CPU seconds it took."""
    start = time.process_time()
    made = work()
    return made, time.process_time() - start


def ours(view: TableView, vocabulary: Vocabulary, config: TokensConfig, epochs: int) -> tuple[int, float]:
    """Tokens and CPU seconds of interleaving and packing; loading the arrays is timed by itself."""
    corpus, seconds = cpu(lambda: Corpus.of(view, "train", vocabulary, config.context_length))
    print(
        f"{'load the sequences table':44}{corpus.speech.ids.size + corpus.text.ids.size:>12,} tokens {seconds:8.2f} s"
    )
    planner = Planner(corpus, vocabulary, config, 0)

    def work() -> int:
        made = 0
        for epoch in range(epochs):
            keys = planner.keys("interleaved", epoch).tolist()
            found = [
                planner.document(p) for run, key in enumerate(keys) for p in planner.plans("interleaved", run, key)
            ]
            for row in fit([len(document.ids) for document in found], config.context_length):
                made += packed([found[i] for i in row], config.context_length).tokens
        return made

    return cpu(work)


def text_table(folder: Path, texts: list[str]) -> TableView:
    """The table `text` of documents of ten lines each."""
    groups = [texts[i : i + 10] for i in range(0, len(texts), 10)]
    rows: list[Row] = [
        {"document_id": f"d{i:07}", "split": "train", "text": "\n".join(group)} for i, group in enumerate(groups)
    ]
    stage = TextStage(FrozenConfig(), {"tokenizer": folder})
    stage.setup()
    documents = table_of(rows, DOCUMENTS_INPUT)
    table, seconds = cpu(lambda: stage.process(documents))
    report("stage text", sum(map(len, table["text_ids"].to_pylist())), seconds)
    return TableView.of(table)


def mixture(
    view: TableView, vocabulary: Vocabulary, config: TokensConfig, wanted: int, text: TableView | None = None
) -> tuple[int, float, float]:
    """The whole training stream: tokens, CPU seconds, share of padding."""
    mixed = Mixture.of(view, vocabulary, config, seed=0, text=text)
    slots = 0

    def work() -> int:
        nonlocal slots
        made = 0
        while made < wanted:
            for plans in mixed.next_window():
                made += mixed.packed(plans).tokens
                slots += config.context_length
        return made

    tokens, seconds = cpu(work)
    return tokens, seconds, 1 - tokens / slots


def naive(view: TableView, vocabulary: Vocabulary, config: TokensConfig, folder: Path, most: int) -> tuple[int, float]:
    """The same documents the usual way: a string of words and tokens, then the Hugging Face tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = vocabulary.tokens
    rows = [row for shard in view.shards() for row in shard.slice(0, most).to_pylist()]
    corpus = Corpus.of(view, "train", vocabulary, config.context_length)
    made = corpus_documents(corpus, vocabulary, config, stream="interleaved", seed=0, epoch=0)
    spans = [int((d.ids == vocabulary.text_marker).sum() + (d.ids == vocabulary.speech_marker).sum()) for d in made]
    per_span = max(
        1, round(sum(len(row["words"]) for shard in view.shards() for row in shard.to_pylist()) / sum(spans))
    )

    def work() -> int:
        tokens = 0
        for row in rows:
            parts, at = [], row["speech_offsets"]
            for i, word in enumerate(row["words"]):
                speech = (i // per_span) % 2
                if i % per_span == 0:
                    parts.append("[Speech]" if speech else "[Text]")
                ids = row["speech_ids"][at[i] : at[i + 1]]
                parts.append("".join([names[t - vocabulary.text_size] for t in ids]) if speech else f" {word}")
            tokens += len(tokenizer.encode("".join(parts), add_special_tokens=False).ids)
        return tokens

    return cpu(work)


def report(name: str, tokens: int, seconds: float, more: str = "") -> None:
    print(f"{name:44}{tokens:>12,} tokens {seconds:8.2f} s {tokens / seconds:>12,.0f} tokens/s{more}")


def measure(texts: list[str], segments: int, title: str) -> None:
    """One table of figures for one kind of corpus."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder, full = Path(name), Path(name) / "full"
        full.mkdir()
        settings = TokenizerConfig(vocab_size=4000)
        save_bpe(train_bpe((f" {t}" for t in texts[:5000]), settings), folder)
        config = TokensConfig(context_length=4096)
        vocabulary = vocabulary_for(folder, config.sequences)
        save_tokenizer(folder, vocabulary, full)
        stage = SequencesStage(SequencesStageConfig(**dict(config.sequences)), {"tokenizer": folder})
        stage.setup()
        made = inputs(texts, segments, rng)
        table, seconds = cpu(lambda: stage.process(*made))
        print(f"\n{title}: {len(texts):,} segments, {segments} a recording, context {config.context_length}")
        print(f"{'stage sequences':44}{len(texts):>12,} rows   {seconds:8.2f} s")
        view = TableView.of(table)
        tokens, seconds = ours(view, vocabulary, config, epochs=2)
        report("interleave and pack", tokens, seconds)
        tokens, spent, padding = mixture(view, vocabulary, config, tokens)
        report("mix of text, speech, interleaved", tokens, spent, f", {100 * padding:.1f} % padding")
        tokens, spent, padding = mixture(view, vocabulary, config, tokens, text_table(folder, texts))
        report("the same, with text documents", tokens, spent, f", {100 * padding:.1f} % padding")
        report("naive: string per word, tokenizer call", *naive(view, vocabulary, config, full, 3000))


def main(hours: float = 20.0, transcripts: Path | None = None) -> None:
    """Make up so many hours of speech, of random words or of a text file with one segment a line."""
    rng = np.random.default_rng(0)
    long, short = (max(1, int(hours * 3600 * WORDS_PER_SECOND / words)) for words in (40, 6))
    given = transcripts.read_text(encoding="utf-8").splitlines() if transcripts else None
    measure(given or random_texts(long, 40, rng), 20, "read books")
    if not given:
        measure(random_texts(short // 4, 6, rng), 1, "short prompts")
    print(f"\npeak memory {peak_memory() / 2**20:.0f} MiB")


if __name__ == "__main__":
    typer.run(main)
