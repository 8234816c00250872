"""Packed training sequences as Parquet that other trainers read, with the tokenizer beside them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.files import new_folder
from spiritlm_core.tokens.finished import FinishedCorpus
from spiritlm_core.tokens.hf import save_tokenizer, write_json
from spiritlm_core.tokens.mix import Mixture
from spiritlm_core.tokens.pack import PADDING, Packed

IGNORED = -100  # label of a position that no loss counts, as in torch and transformers
META_FILE = "corpus.json"
_ROWS = 256  # sequences in memory, and in a row group

PACKED = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32())),  # of the context length; padding is 0
        pa.field("labels", pa.list_(pa.int32())),  # input_ids, not shifted; -100 where no loss is counted
        pa.field("attention_mask", pa.list_(pa.int8())),  # 0 for padding
        pa.field("position_ids", pa.list_(pa.int32())),  # from 0 in each document
        pa.field("segment_offsets", pa.list_(pa.int32())),  # document i is input_ids[o[i]:o[i+1]]
        pa.field("segment_streams", pa.list_(pa.string())),  # such as "text", "speech" and "interleaved"
        pa.field("segment_ids", pa.list_(pa.string())),  # recording_id or document_id
    ]
)


@dataclass
class Counts:
    """What was written."""

    sequences: int = 0
    tokens: int = 0
    files: int = 0
    streams: dict[str, int] = field(default_factory=dict)

    def add(self, packed: Packed) -> None:
        """Count one sequence."""
        self.sequences += 1
        self.tokens += packed.tokens
        lengths = np.bincount(packed.document_ids[packed.document_ids != PADDING], minlength=len(packed.streams))
        for stream, length in zip(packed.streams, lengths.tolist(), strict=True):
            self.streams[stream] = self.streams.get(stream, 0) + length


def export(
    corpus: FinishedCorpus,
    out: Path,
    *,
    seed: int,
    split: str = "train",
    epochs: int | None = 1,
    tokens: int | None = None,
    shard_tokens: int = 2**27,
    force: bool = False,
    progress: Callable[[Counts], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the sequences that training sees, in its order, to ``out/data/*.parquet``; returns ``corpus.json``.

    The folder appears when it is complete. Memory does not grow with the number of sequences.

    Args:
        corpus: What they are drawn from.
        out: A new or empty folder.
        seed: `lm.seed` gives the order of training.
        split: "train" or "held_out".
        epochs: Stop behind the window in which every document was shown so often,
        tokens: or behind the sequence with this token; padding does not count.
        shard_tokens: Positions of one file, padding included.
        force: Replace what is in `out`.
        progress: Called after every few hundred sequences.

    Raises SpiritLMError: `out` is not empty, or there is nothing to export.
    """
    check_target(out, force=force)
    mixture = corpus.mixture(seed=seed, split=split)
    with new_folder(out) as fresh:
        (fresh / "data").mkdir(parents=True)
        per_file = max(1, shard_tokens // corpus.config.context_length)
        counts = _write(_until(mixture, epochs, tokens), fresh / "data", split, per_file, progress)
        save_tokenizer(corpus.tokenizer, corpus.vocabulary, fresh)
        meta = _meta(corpus, mixture, counts, {"seed": seed, "split": split, "epochs": epochs, "max_tokens": tokens})
        write_json(fresh / META_FILE, meta)
        (fresh / "README.md").write_text(_readme(meta), encoding="utf-8")
    return meta


def check_target(out: Path, *, force: bool = False) -> None:
    """Raises SpiritLMError if `out` is a file, or holds something that `force` may not replace."""
    if out.exists() and not out.is_dir():
        raise SpiritLMError(f"{out} is a file, not a folder")
    if not force and out.is_dir() and any(out.iterdir()):
        raise SpiritLMError(f"{out} is not empty: name a new folder, or replace an older export in it with --force")
    if force and out.is_dir() and any(out.iterdir()) and not (out / META_FILE).is_file():
        raise SpiritLMError(f"{out} holds something else than an exported corpus; delete it yourself if it may go")


def columns(packed: Packed) -> dict[str, Any]:
    """One sequence as a row of `PACKED`."""
    documents = packed.document_ids
    real = documents != PADDING
    offsets = np.searchsorted(np.where(real, documents, len(packed.streams)), np.arange(len(packed.streams) + 1))
    return {
        "input_ids": packed.input_ids,
        "labels": np.where(packed.targets, packed.input_ids, IGNORED),
        "attention_mask": real.astype(np.int8),
        "position_ids": packed.positions.astype(np.int32),
        "segment_offsets": offsets.astype(np.int32),
        "segment_streams": list(packed.streams),
        "segment_ids": list(packed.keys),
    }


def _until(mixture: Mixture, epochs: int | None, tokens: int | None) -> Iterator[Packed]:
    """The sequences of training up to a number of tokens, else of epochs."""
    seen = 0
    while tokens is not None or not mixture.has_shown(epochs or 1):
        for row in mixture.next_window():
            packed = mixture.packed(row)
            yield packed
            seen += packed.tokens
            if tokens is not None and seen >= tokens:
                return


def _write(
    sequences: Iterator[Packed], folder: Path, split: str, per_file: int, progress: Callable[[Counts], None]
) -> Counts:
    counts = Counts()
    while rows := list(islice(sequences, min(_ROWS, per_file))):
        with pq.ParquetWriter(folder / f"{split}-{counts.files:05d}.parquet", PACKED, compression="zstd") as writer:
            left = per_file
            while rows:
                writer.write_table(_table(rows))
                for packed in rows:
                    counts.add(packed)
                left -= len(rows)
                progress(counts)
                rows = list(islice(sequences, min(_ROWS, left)))
        counts.files += 1
    return counts


def _table(rows: list[Packed]) -> pa.Table:
    made = [columns(packed) for packed in rows]
    return pa.table({f.name: pa.array([row[f.name] for row in made], f.type) for f in PACKED}, PACKED)


def _meta(corpus: FinishedCorpus, mixture: Mixture, counts: Counts, asked: dict[str, Any]) -> dict[str, Any]:
    positions = counts.sequences * corpus.config.context_length
    return {
        "recipe": corpus.recipe,
        **asked,
        "context_length": corpus.config.context_length,
        "sequences": counts.sequences,
        "tokens": counts.tokens,
        "padding": round(1 - counts.tokens / positions, 6) if positions else 0.0,
        "files": counts.files,
        "tokens_by_stream": dict(sorted(counts.streams.items())),
        "epochs_begun": {name: stream.cursor.epoch + 1 for name, stream in mixture.streams.items()},
        "vocabulary": {"size": corpus.vocabulary.size, "fingerprint": corpus.vocabulary.fingerprint()},
        "lineage": corpus.fingerprints,
        "settings": json.loads(corpus.config.model_dump_json()),
    }


def _readme(meta: dict[str, Any]) -> str:
    return _README.format(
        **{key: meta[key] for key in ("recipe", "split", "seed", "sequences", "tokens", "context_length")},
        padding=100 * meta["padding"],
        size=meta["vocabulary"]["size"],
    )


_README = """\
---
configs:
- config_name: default
  data_files: data/*.parquet
---
# Packed speech-text sequences of the recipe {recipe}

{sequences} sequences of {context_length} positions, {tokens} tokens, {padding:.1f} % padding: the {split} split, in the
order in which training with seed {seed} sees them. `corpus.json` has the figures, the settings and the origin.

| column | one value per | meaning |
|---|---|---|
| `input_ids` | position | token ids, documents one after the other, then zeros |
| `labels` | position | `input_ids`, not shifted; -100 where no loss is counted, such as padding and first tokens |
| `attention_mask` | position | 0 for padding |
| `position_ids` | position | from 0 in each document |
| `segment_offsets` | document, and one | document i is `input_ids[segment_offsets[i]:segment_offsets[i + 1]]` |
| `segment_streams` | document | its stream: `text`, `speech`, `interleaved`, `asr`, `tts`, `classification` |
| `segment_ids` | document | recording_id, or document_id of a text |

```python
from datasets import load_dataset
from transformers import AutoTokenizer

data = load_dataset("parquet", data_files="data/*.parquet", split="train", streaming=True)
tokenizer = AutoTokenizer.from_pretrained(".")
```

Models of transformers shift the labels themselves. Give the model {size} embedding rows (`resize_token_embeddings`,
more are fine): `vocabulary.json` has the layout of the ids. Keep the order, or shuffle: neither changes what a sequence
holds. No token should attend to another document: a variable-length kernel takes the bounds from `segment_offsets`,
FlashAttention in transformers from `position_ids` when no `attention_mask` is given.
"""
