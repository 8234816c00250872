"""A small lake with a finished corpus, made with the real stages and a real tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from spiritlm_core.align.stage import WORDS
from spiritlm_core.config import FrozenConfig
from spiritlm_core.config_files import load_config
from spiritlm_core.lake.fingerprint import config_json, shard_key
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.plan import ModelSource, StageCall
from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.lake.shard import ShardFooter, count_rows
from spiritlm_core.lake.snapshot import ShardEntry, Snapshot
from spiritlm_core.recipe import Recipe
from spiritlm_core.speech.stage import COPIES, UNITS
from spiritlm_core.tokens.config import SequencesStageConfig, TokenizerStageConfig
from spiritlm_core.tokens.stage import SEQUENCES, CopiedSequencesStage, SequencesStage
from spiritlm_core.tokens.text_stage import DOCUMENTS, TextStage
from tests.support.filled_lake import commit_artifact

RECIPE = """\
name: small
sources: [{kind: folder, path: nowhere}]
units: {quantizer: {units: 60}, pitch: {codes: 9}, style: {clusters: 5}}
tokens:
  sequences: {hubert: 60, pitch: 9, style: 5}
  context_length: 128
  window: 4
  text_span: {kind: uniform, minimum: 1, maximum: 6}
  speech_span: {kind: uniform, minimum: 1, maximum: 4}
lm: {tokens_per_step: 512, seed: 3}
"""
TEXTS = "texts: [{path: nowhere}]\n"
SENTENCES = [
    f"{who} said {what} to the other{end}"
    for who in ("he", "she", "nobody")
    for what in ("yes", "no", "it's fine")
    for end in ("", ", twice.", " one hundred and twenty two times")
]


def document_rows(texts: list[str]) -> list[Row]:
    """Rows of the table `documents`, every sixth held out."""
    return [
        {"document_id": f"d{i:03}", "split": "held_out" if i % 6 == 5 else "train", "text": text, "source_uri": "x"}
        for i, text in enumerate(texts)
    ]


def small_lake(root: Path, tokenizer: Path, *, texts: bool, copies: int = 0) -> tuple[Lake, Recipe]:
    """A lake with `sequences`, and `text` and copies if asked for, and the recipe that could have made it."""
    recipe = load_config(Recipe, RECIPE + (TEXTS if texts else ""), "small.yaml")
    lake, key = Lake(root), "ab" * 32
    commit_artifact(lake, "tokenizer", key, tokenizer, TokenizerStageConfig())
    config = SequencesStageConfig(**dict(recipe.token_settings.sequences))
    laid, parts = CopiedSequencesStage if copies else SequencesStage, rows(SENTENCES)
    more = [copied(parts[0], parts[2], copies)] if copies else []
    sequences = laid(config, {"tokenizer": tokenizer}).process(*tables(*parts), *more)
    commit(lake, recipe, "spiritlm_core.tokens.stage:SequencesStage", config, sequences)
    if texts:
        long = " ".join(SENTENCES)
        documents = table_of(document_rows([*SENTENCES, long, f"{long}\n{long}"]), DOCUMENTS)
        columns = list(TextStage.inputs[0].columns or ())
        table = TextStage(FrozenConfig(), {"tokenizer": tokenizer}).process(documents.select(columns))
        commit(lake, recipe, "spiritlm_core.tokens.text_stage:TextStage", FrozenConfig(), table)
    return lake, recipe


def commit(lake: Lake, recipe: Recipe, cls: str, config: FrozenConfig, *tables: pa.Table) -> None:
    """Let the recipe have a table of these shards."""
    call = StageCall.of(cls, config, {"tokenizer": ModelSource("ab" * 32, artifact="tokenizer")})
    shards = []
    for number, table in enumerate(tables):
        stats, parents = count_rows(table, call.name, 0.0), [f"{number:02}"]
        key = shard_key(call.identity, parents)
        made = (key, call.name, call.name, call.version, call.identity, config_json(config), call.digests)
        lake.write_shard(table, ShardFooter(*made, parents=parents, members=[], code_version="0", stats=stats))
        shards.append(ShardEntry(key, stats))
    snapshot = Snapshot(call.name, call.identity, tuple(shards), {"models": call.digests})
    lake.write_snapshot(snapshot)
    lake.write_ref(recipe.name, call.name, "table", snapshot.fingerprint, call.identity)


def timed(text: str, rng: np.random.Generator, seconds: float) -> list[Row]:
    words = text.split()
    starts = np.sort(rng.random(len(words))) * seconds
    ends = np.append(starts[1:], seconds)
    return [
        {"word": w, "start": s, "end": e, "score": 0.5, "interpolated": False}
        for w, s, e in zip(words, starts.tolist(), ends.tolist(), strict=True)
    ]


def rows(texts: list[str], seed: int = 0) -> tuple[list[Row], list[Row], list[Row]]:
    """Audio, words and units rows of some texts with random times and units."""
    rng = np.random.default_rng(seed)
    audio, words, units = [], [], []
    for i, text in enumerate(texts):
        seconds = 0.3 * len(text.split()) + 1
        key: Row = {"utterance_id": f"u{i}"}
        split = "held_out" if i % 5 == 4 else "train"
        meta = {"start": 10.0 * (i % 4), "duration": seconds, "speaker": "s", "language": "en", "split": split}
        audio.append({**key, "recording_id": f"r{i // 4}", **meta})
        words.append({**key, "words": timed(text, rng, seconds), "text": text, "text_origin": "given"})
        streams = {
            name: rng.integers(0, size, int(seconds * rate))
            for name, size, rate in (("hubert", 60, 25), ("pitch", 9, 12.5), ("style", 5, 1))
        }
        units.append({**key, **streams})
    return audio, words, units


def copied(audio: list[Row], units: list[Row], count: int) -> pa.Table:
    """The table `copies` of these rows: copy k starts k frames later and has units k higher."""
    found = []
    for segment, row in zip(audio, units, strict=True):
        copies = [
            {"start": 0.04 * k, "speed": 1.0, "room": 0, **row, "hubert": (row["hubert"][k:] + k) % 60}  # type: ignore[index]
            for k in range(1, count + 1)
        ]
        for copy in copies:
            del copy["utterance_id"]
        found.append({"utterance_id": row["utterance_id"], "copies": copies if segment["split"] == "train" else []})
    return table_of(found, COPIES)


def tables(audio: list[Row], words: list[Row], units: list[Row]) -> list[pa.Table]:
    names = list(SequencesStage.inputs[0].columns or ())
    schema = pa.schema([SEQUENCES.field(name) for name in names])
    return [table_of(audio, schema), table_of(words, WORDS), table_of(units, UNITS)]
